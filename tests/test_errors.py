"""The one exception that speaks to the user, and the offer of a near word."""

import pickle

from subclass_kd.errors import UserError, nearest


def test_a_message_tells_where_found_expected_and_remedy_in_this_order():
    assert str(UserError("a.yaml", "3", "4", "Mend it.")) == "a.yaml: found 3; expected 4. Mend it."
    assert str(UserError("a.yaml", "3", "4")) == "a.yaml: found 3; expected 4."


def test_a_message_is_one_line_whatever_is_put_into_it():
    assert (
        str(UserError("a", "several\n  lines\r\nof a library", "one"))
        == "a: found several lines of a library; expected one."
    )


def test_a_path_with_two_spaces_keeps_them():
    assert str(UserError("my  study.yaml", "3", "4")).startswith("my  study.yaml:")


def test_an_error_crosses_process_borders_with_all_its_parts():
    error = pickle.loads(pickle.dumps(UserError("a", "b", "c", "d")))
    assert (error.where, error.found, error.expected, error.remedy) == ("a", "b", "c", "d")
    assert isinstance(error, UserError)


def test_a_near_word_is_offered_and_a_far_one_is_not():
    assert nearest("epoch", ["epochs", "model"]) == 'Did you mean "epochs"?'
    assert nearest("zzz", ["epochs", "model"]) == ""
    assert nearest("epochs", []) == ""
