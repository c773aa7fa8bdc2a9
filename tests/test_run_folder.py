"""Whether a folder may be used: what is told of a study.json that is not as it was written."""

import json

import pytest

from subclass_kd.errors import UserError
from subclass_kd.run_folder import check_folder, write_sums
from subclass_kd.study_file import make_study


def test_any_flipped_bit_of_the_study_is_told_as_damage_or_changes_nothing(tmp_path):
    study = make_study({"arms": ["scratch"], "seeds": 2, "student": {"model": "small:convnet"}})
    file = tmp_path / "study.json"
    whole = json.dumps(study.model_dump(mode="json"), indent=2).encode()
    file.write_bytes(whole)
    write_sums(tmp_path)
    check_folder(study, tmp_path)
    told = {bit: [] for bit in range(8)}
    places = range(0, len(whole), 37)
    for at in places:
        for bit, messages in told.items():
            content = bytearray(whole)
            content[at] ^= 1 << bit
            file.write_bytes(content)
            try:
                check_folder(study, tmp_path)
            except UserError as error:
                messages.append(str(error))
    assert len(told[7]) == len(places)  # no letter of ASCII, and so no UTF-8 either
    assert min(map(len, told.values())) > len(places) / 2
    expected = "study.json: found another content than SHA256SUMS states; expected the study of this run"
    assert all(expected in message for messages in told.values() for message in messages)


def test_a_study_that_is_no_text_is_refused_where_nothing_says_what_it_was(tmp_path):
    (tmp_path / "study.json").write_bytes(b'{"arms": ["\xf3cratch"]}')
    with pytest.raises(UserError, match=r"study\.json: found no study; expected the study of this run\."):
        check_folder(make_study({}), tmp_path)
