"""Which subclass belongs to which class: as the study says, or as the data do."""

from __future__ import annotations

from collections.abc import Sequence

from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError, nearest
from subclass_kd.hierarchy import SubclassHierarchy


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


def resolve_positive(given: str | None, hierarchy: SubclassHierarchy) -> int:
    """Number the class that F1 speaks of: the last one if none is given.

    Raises:
        UserError: there is no such class.
    """
    if given is None:
        return hierarchy.num_classes - 1
    if given not in hierarchy.classes:
        remedy = nearest(given, hierarchy.classes)
        raise UserError('key "positive"', f'"{given}"', f"one of {', '.join(hierarchy.classes)}", remedy)
    return hierarchy.classes.index(given)
