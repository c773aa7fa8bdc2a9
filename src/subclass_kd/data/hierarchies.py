"""Which subclass belongs to which class: as the study says, or as the data do."""

from __future__ import annotations

from collections.abc import Sequence

from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import alike, quoted
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError, nearest
from subclass_kd.hierarchy import SubclassHierarchy

# What the class is called that is not looked for; in lower case.
NEGATIVE = {"normal", "negative", "benign", "healthy", "control", "no", "none", "0", "false"}


def found_hierarchy(table: SampleTable) -> dict[str, list[str]]:
    """Give class: [subclasses] as the rows of a table have them, both sorted.

    Args:
        table: with classes and subclasses; readers leave no subclass under two classes.

    Raises:
        UserError: the rows name no classes, and nothing else does.

    >>> table = SampleTable("a.csv", ["1", "2"], classes=["sick", "well"], subclasses=["viral", "healthy"])
    >>> found_hierarchy(table)
    {'sick': ['viral'], 'well': ['healthy']}
    """
    if table.classes is None or table.subclasses is None:
        remedy = "List the subclasses of each class there."
        raise UserError('key "hierarchy"', f"none, and no classes in {table.where}", "class: [subclasses]", remedy)
    class_of = dict(zip(table.subclasses, table.classes, strict=True))
    classes = sorted(set(class_of.values()))
    return {name: sorted(subclass for subclass in class_of if class_of[subclass] == name) for name in classes}


def resolve_hierarchy(given: dict[str, list[str]], names: Sequence[str], where: str) -> SubclassHierarchy:
    """Hold a hierarchy against the subclasses that the data have.

    Args:
        given: class: [subclasses], checked class by class: a dictionary of subclasses would lose a repeated one.
        names: the data's subclasses.
        where: what messages call the data.

    Raises:
        UserError: fewer than two classes, a class without subclasses, a subclass twice, unknown, or left out.
    """
    if len(given) < 2:
        found = f"the classes {list(given)}"
        raise UserError('key "hierarchy"', found, "at least two, each with its subclasses", f"They come from {where}.")
    parents: dict[str, str] = {}
    for name, members in given.items():
        key = f'key "hierarchy.{name}"'
        if not members:
            raise UserError(key, "no subclass", "at least one", "Give it one, or remove the class.")
        for member in members:
            if member in parents:
                raise UserError(key, f'"{member}", which "{parents[member]}" has too', "each subclass in one class")
            if member not in names:
                expected = f"subclasses of {where}: {', '.join(names)}"
                raise UserError(key, f'"{member}"', expected, nearest(member, names))
            parents[member] = name
    left_out = [name for name in names if name not in parents]
    if left_out:
        found = f"{len(parents)} subclasses, without {', '.join(left_out)}"
        expected = f"all {len(names)} subclasses of {where}"
        raise UserError('key "hierarchy"', found, expected, "Add each missing one to a class.")
    return SubclassHierarchy(tuple(given), parents)


def check_regrouped(given: dict[str, list[str]], table: SampleTable) -> None:
    """Hold a study's hierarchy against the classes that the data have beside subclasses.

    Subclasses may be regrouped under classes of other names. A class of the data's own name with another one's
    subclass is a slip, which would turn labels over.

    Args:
        given: class: [subclasses], all of them the table's.
        table: whose classes say nothing where they are the subclasses themselves.

    Raises:
        UserError: there is such a class.
    """
    if table.classes is None or table.subclasses is None or table.classes == table.subclasses:
        return
    class_of = dict(zip(table.subclasses, table.classes, strict=True))
    own = {alike(name): name for name in table.classes}
    for name, members in given.items():
        known = own.get(alike(name))
        if known is None:
            continue
        for member in members:
            if class_of[member] != known:
                found = f"{quoted(member)}, of class {quoted(class_of[member])} in {table.where}"
                there = ", ".join(sorted(subclass for subclass, of in class_of.items() if of == known))
                expected = f"subclasses of {quoted(known)} there: {there}"
                remedy = (
                    "Correct the hierarchy or the data; to regroup on purpose, give the classes names of their own."
                )
                raise UserError(f'key "hierarchy.{name}"', found, expected, remedy)


def resolve_positive(given: str | None, hierarchy: SubclassHierarchy, findings: Findings) -> int:
    """Number the class that F1 speaks of: the last one if none is given.

    Args:
        given: its name.
        hierarchy: whose classes there are.
        findings: takes a warning where the last one is called like a negative class.

    Raises:
        UserError: there is no such class.
    """
    if given is None:
        last = hierarchy.classes[-1]
        if last.lower() in NEGATIVE:
            found = f"nothing, so that {quoted(last)}, the last class, is the positive one"
            expected = "the class that F1, sensitivity and specificity shall speak of"
            remedy = f"Name it; positive: {last} if it is this one."
            findings.warning("negative class as positive", 'key "positive"', found, expected, remedy)
        return hierarchy.num_classes - 1
    if given not in hierarchy.classes:
        remedy = nearest(given, hierarchy.classes)
        raise UserError('key "positive"', f'"{given}"', f"one of {', '.join(hierarchy.classes)}", remedy)
    return hierarchy.classes.index(given)
