"""From one variant of a table, as its JSON has it, to Markdown: n in the caption, every number with its interval."""

from __future__ import annotations

from typing import Any

from benchmarks.evidence_tables import Table

METRICS = {"f1": "F1, %", "error": "error, %", "auroc": "AUROC, %", "subclass_accuracy": "subclass accuracy, %"}


def variant_markdown(table: Table, variant: str, row: dict[str, Any]) -> str:
    """Give caption, table of networks, table of differences and label bits of one variant."""
    return "\n\n".join(
        part
        for part in (
            f"**{variant}.** {caption(table, row)}",
            networks_markdown(row),
            differences_markdown(row),
            bits_markdown(row),
        )
        if part
    )


def caption(table: Table, row: dict[str, Any]) -> str:
    """Say what every number of a variant is a mean of, how long it took, and on which machine."""
    results = next(iter(row["runs"].values()))
    study, data = results["study"], results["data"]
    counts = {split: sum(each[split] for each in data["subclasses"]) for split in ("train", "validation", "test")}
    seeds, folds = len(study["seeds"]), study["data"]["folds"]
    whole = f"{seeds} seeds" if seeds >= table.seeds else f"**{seeds} of {table.seeds} planned seeds: interim**"
    whole = whole.replace("1 seeds", "1 seed")
    tested = f"{counts['test']:,} test images" + (f" of {data['groups']['test']:,} patients" if data["groups"] else "")
    per_fold = f" a fold, {folds} folds, each image tested once a seed" if folds else ""
    minutes = sum(each["seconds"] for made in row["sittings"].values() for each in made) / 60
    trained = sum(
        network["train_seconds"] * seeds * (folds or 1)
        for result in row["runs"].values()
        for network in [*result["arms"].values(), *result["teachers"].values()]
    )
    networks = f"`{study['teacher']['model']}` teaches `{study['student']['model']}`"
    schedule = f"{study['teacher']['epochs']} and {study['student']['epochs']} epochs"
    return (
        f"n = {whole}; {tested}; {counts['train']:,} images to train, {counts['validation']:,} to validate{per_fold}. "
        f"{networks}, {schedule}. {minutes:.0f} minutes in all, {trained / 60:.0f} of a core in training; "
        f"{row['machine']}."
    )


def networks_markdown(row: dict[str, Any]) -> str:
    """Give a line for each arm and teacher: mean over seeds ± half of the 95 % interval over seeds."""
    arms = {name: network for results in row["runs"].values() for name, network in results["arms"].items()}
    teachers = {
        f"teacher: {name}": network for results in row["runs"].values() for name, network in results["teachers"].items()
    }
    metrics = [
        name for name in METRICS if name != "subclass_accuracy" or any(_has(each, name) for each in arms.values())
    ]
    lines = [
        f"| | {' | '.join(METRICS[name] for name in metrics)} | parameters | n |",
        "|---|" + "---|" * (len(metrics) + 2),
    ]
    for name, network in {**arms, **teachers}.items():
        cells = [_spread(network, metric) for metric in metrics]
        n = f"{len(network['f1']['per_seed'])} x {network['test_images']:,}"
        label = name if name in teachers else f"`{name}`"
        lines.append(f"| {label} | {' | '.join(cells)} | {network['parameters']:,} | {n} |")
    return "\n".join(lines)


def _has(network: dict[str, Any], metric: str) -> bool:
    return network.get(metric, {}).get("mean") is not None


def _spread(network: dict[str, Any], metric: str) -> str:
    """Give a metric in percent; error is what accuracy leaves.

    >>> _spread({"accuracy": {"mean": 0.9, "ci95": [0.88, 0.92]}}, "error")
    '10.0±2.0'
    """
    summary = network["accuracy" if metric == "error" else metric]
    if summary["mean"] is None:
        return ""
    mean = 1 - summary["mean"] if metric == "error" else summary["mean"]
    half = f"±{50 * (summary['ci95'][1] - summary['ci95'][0]):.1f}" if summary["ci95"] else ""
    return f"{100 * mean:.1f}{half}"


def differences_markdown(row: dict[str, Any]) -> str:
    """Give a line for each pair: differences in points over seeds and test images, interval, corrected p, verdict."""
    differences = row["differences"]
    metrics = [metric for metric in METRICS if metric in differences]
    heads = [f"{METRICS[metric].partition(',')[0]}, points (95 % interval) | verdict, p (Holm)" for metric in metrics]
    lines = [f"| difference | {' | '.join(heads)} |", f"|---|{'---|' * 2 * len(metrics)}"]
    for place, pair in enumerate(differences["f1"]):
        cells = []
        for metric in metrics:
            points, interval, p, verdict = difference_cells(differences[metric][place])
            cells += [f"{points} ({interval})", f"{verdict}, {p}" if p else verdict]
        lines.append(f"| `{pair['arm']}` - `{pair['reference']}` | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def difference_cells(row: dict[str, Any]) -> list[str]:
    """Give points, interval, corrected p and verdict of one comparison.

    >>> difference_cells({"difference": 0.01, "ci95": [0.002, 0.018], "p_holm": 0.03, "verdict": "better"})
    ['+1.00', '+0.20 to +1.80', '0.030', 'better']
    """
    if row["ci95"] is None:
        return [f"{100 * row['difference']:+.2f}", "none", "", row["verdict"]]
    low, high = row["ci95"]
    p = f"{row['p_holm']:.3f}" if row["p_holm"] >= 0.0005 else "<0.001"
    return [f"{100 * row['difference']:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}", p, row["verdict"]]


def bits_markdown(row: dict[str, Any]) -> str:
    """Say what the subclass teacher's answers tell beyond the class: three estimators on two splits."""
    results = next((each for each in row["runs"].values() if each["label_bits"]), None)
    if results is None:
        return ""
    names = {"symmetric": "symmetric channel", "mutual_information": "mutual information", "soft": "soft"}
    splits = {"train": "on training images", "test": "on test images"}
    said = [
        f"{where} " + ", ".join(f"{title} {_bits(results['label_bits'][split], name)}" for name, title in names.items())
        for split, where in splits.items()
    ]
    ceiling = results["label_bits"]["test"]["ceiling"]
    return (
        f"Label bits of the subclass teacher: {'; '.join(said)}; at most {ceiling:.2f} (H(S\\|C) of the test images)."
    )


def _bits(split: dict[str, Any], name: str) -> str:
    interval = split["over_seeds"][name]["ci95"]
    half = f"±{(interval[1] - interval[0]) / 2:.2f}" if interval else ""
    return f"{split[name]:.2f}{half}"
