"""Say in Markdown what a run, a model and a version are: what a person reads first on their pages."""

from odn.sanitize import markdown
from odn.tracking.record import DepthRecord, SearchRecord


def depth_note(record: DepthRecord, *, unit: str) -> str:
    """Describe a depth, or rung: its verdict and why, or how far it is."""
    if record.kept != record.depth:
        pruned = f" Pruned: {record.kept} of its {record.depth} blocks are left, with fewer channels."
    else:
        pruned = " Pruned: its blocks have fewer channels." if record.step.left is not None else ""
    if record.verdict is None:
        return f"{unit.capitalize()} {record.depth} is trained ({record.step.val_accuracy:.2%} on val) and not judged yet.{pruned}"
    name = record.verdict.verdict.replace("_", " ")
    return f"**{name}**: {markdown(record.verdict.reason)}{'.' if pruned else ''}{pruned}"


def search_note(record: SearchRecord) -> str:
    """Describe a search: a line a depth, and what came of it."""
    lines = [f"| {record.config.unit} | accuracy on val | {record.config.search.confidence:.0%} interval | verdict |", "|---|---|---|---|"]
    for one in record.depths:
        if one.verdict is None:
            lines.append(f"| {one.kept} | {one.step.val_accuracy:.2%} | – | not judged yet |")
        else:
            low, high = one.verdict.val_interval
            verdict = one.verdict.verdict.replace("_", " ")
            lines.append(f"| {one.kept} | {one.verdict.val_accuracy:.2%} | {low:.2%} – {high:.2%} | {verdict} |")
    return "\n".join([_headline(record), "", *lines])


def version_note(record: SearchRecord) -> str:
    """Describe a model version: what it can do, how big it is, what goes in and what comes out."""
    manifest, numbers = record.manifest, record.metrics
    size = f"{manifest.channels}, {manifest.height}, {manifest.width}"
    classes = ", ".join(map(markdown, manifest.classes[:12])) + (", …" if manifest.n_classes > 12 else "")
    smaller, quicker = f"{numbers['params_saved']:.1%} fewer than the whole backbone has", f"{numbers['macs_saved']:.1%} fewer"
    return "\n\n".join(
        [
            _headline(record),
            f"**In**: float32 images (N, {size}), pixels from 0 to 255; normalisation is inside. "
            f"**Out**: float32 probabilities (N, {manifest.n_classes}) of the classes {classes}.",
            f"{int(numbers['n_params']):,} parameters ({smaller}), {int(numbers['size_bytes']):,} bytes, "
            f"{int(numbers['macs']):,} multiply-adds an image ({quicker}).",
        ]
    )


def model_note(record: SearchRecord) -> str:
    """Describe the registered model, over all its versions."""
    rule = record.config.registry
    made = "pruned while it was trained" if record.config.mode.cuts_inside else f"cut at the {record.config.unit} that the data needs"
    rules = {
        "accuracy": "more accurate on the same test images",
        "bytes": f"smaller, and at most {rule.margin:.2%} less accurate on the same test images",
    }
    return (
        f"{record.config.model.backbone} for {markdown(record.config.data.name)}, {made}. "
        f"`candidate` is the newest version; `champion` moves to a version that reached its target and is {rules[rule.champion_by]}."
    )


def _headline(record: SearchRecord) -> str:
    data_name = markdown(record.config.data.name)
    if record.search is None:
        goal = f"target {record.config.search.target:.2%} on val"
        return f"Searching the {'size' if record.config.spreads else 'depth'} of {record.config.model.backbone} for {data_name}: {goal}."
    search = record.search
    ending = "reached" if record.verdict == "target_reached" else "**not reached**; the best depth was kept"
    channels = ", channels cut" if record.config.mode.cuts_inside else ""
    test = f", {record.metrics['test_accuracy']:.2%} on test" if "test_accuracy" in record.metrics else ""
    kept = f"{record.config.unit} **{search.depth}** of {record.config.n_units} kept{channels}"
    return (
        f"{record.config.model.backbone} on {data_name}: {kept}, "
        f"{search.val_accuracy:.2%} on val{test}. Target {search.target:.2%} on val {ending}. "
        f"The search cost {search.full_network_epochs:.2f} full-network epochs."
    )
