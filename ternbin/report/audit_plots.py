"""Plots of the claim audit as SVG text."""

from ternbin.report.matplot import COLORS, styled, subplots, svg

GROUPS = ("arithmetic", "on-chip", "external")


@styled
def energy_by_precision(subject: dict) -> str:
    """Energy a token of each precision, at equal throughput and at equal area, and what it is made of, by phase."""
    phases = [phase["name"] for phase in subject["precisions"][0]["phases"]]
    figure, axes = subplots(len(phases), 3, figsize=(11, 3.6 * len(phases)), squeeze=False, width_ratios=(3, 2, 2))
    names = [record["name"] for record in subject["precisions"]]
    for number, phase in enumerate(phases):
        total, *shares = axes[number]
        for kind, label, shift, shape in (
            ("precisions", "equal throughput", -0.15, "o"),
            ("equal_latency", "least energy", 0.15, "s"),
        ):
            for row, record in enumerate(subject[kind]):
                figures = record["phases"][number]["per_token_pj"]
                total.plot([figures["low"] / 1e6, figures["high"] / 1e6], [row + shift] * 2, color="black", lw=1)
                total.plot(
                    figures["pj"] / 1e6,
                    row + shift,
                    shape,
                    color=COLORS[kind == "equal_latency"],
                    label=label if row == 0 else None,
                )
        total.set(xscale="log", xlabel="uJ a token, system (line: range)", title=phase)
        total.legend(frameon=False, fontsize=8)
        for axis, kind, label in zip(
            shares, ("precisions", "equal_latency"), ("equal throughput", "least energy"), strict=True
        ):
            left = [0.0] * len(names)
            for color, group in zip(COLORS[2:], GROUPS, strict=False):
                energies = [record["phases"][number]["energy"] for record in subject[kind]]
                parts = [energy[group]["pj"] / energy["system"]["pj"] for energy in energies]
                axis.barh(range(len(names)), parts, left=left, color=color, label=group)
                left = [a + b for a, b in zip(left, parts, strict=True)]
            axis.set(xlabel=f"share, {label}", xlim=(0, 1))
        shares[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        for axis in axes[number]:
            axis.set_yticks(range(len(names)), names)
            axis.invert_yaxis()
    return svg(figure)


@styled
def quality(subject: dict) -> str:
    """Energy a token against ROUGE-1 and nats a token, by phase; sizes of a precision that was not trained for are joined."""
    phases = [phase["name"] for phase in subject["precisions"][0]["phases"]]
    precisions = list(dict.fromkeys(row["precision"] for row in subject["quality"]))
    figure, axes = subplots(len(phases), 2, figsize=(10, 3.4 * len(phases)), squeeze=False)
    for phase, pair in zip(phases, axes, strict=True):
        for axis, (metric, label) in zip(pair, (("rouge_1", "ROUGE-1"), ("nats", "nats a token")), strict=True):
            for color, precision in zip(COLORS, precisions, strict=False):
                rows = [row for row in subject["quality"] if row["precision"] == precision]
                points = sorted((row["per_token_pj"][phase]["pj"] / 1e6, row[metric]) for row in rows)
                axis.plot(
                    *zip(*points, strict=True), "o-" if len(points) > 1 else "s", ms=5, color=color, label=precision
                )
            axis.set(xscale="log", xlabel="uJ a token, system", ylabel=label, title=phase)
            if metric == "nats":
                axis.invert_yaxis()
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg(figure)


@styled
def kept_in_fp32(subject: dict) -> str:
    """FP32 over W2A2, in operations and in energy of the system, as parts of the model stay in full precision."""
    figure, axes = subplots(1, len(subject["kept_in_fp32"]), figsize=(10, 2.6), squeeze=False)
    for axis, phase in zip(axes[0], subject["kept_in_fp32"], strict=True):
        steps = phase["steps"]
        for shift, label, values in (
            (-0.2, "operations", [step["operation_ratio"] for step in steps]),
            (0.2, "energy of the system", [phase["reference_pj"] / step["system_pj"] for step in steps]),
        ):
            bars = axis.barh(
                [row + shift for row in range(len(steps))], values, height=0.36, color=COLORS[shift > 0], label=label
            )
            axis.bar_label(bars, labels=[f" {value:.3g}x" for value in values], fontsize=7)
        axis.set_yticks(range(len(steps)), [("+ " if row > 1 else "") + step["kept"] for row, step in enumerate(steps)])
        axis.set(xscale="log", title=phase["phase"], xlabel="FP32 / W2A2")
        axis.margins(x=0.25)
        axis.invert_yaxis()
    axes[0][-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg(figure)


@styled
def break_even(subject: dict) -> str:
    """Energy a token of a reference over that of W2A2 along each parameter; dashed: the paper's ratio."""
    sweeps = subject["break_even"]
    figure, axes = subplots(2, -(-len(sweeps) // 2), figsize=(11, 6.6), squeeze=False)
    flat = list(axes.flat)
    for axis, sweep in zip(flat, sweeps, strict=False):
        for curve in sweep["curves"]:
            color, style = COLORS[curve["reference"] != "FP32"], "o-" if curve["phase"] == "prefill" else "s--"
            axis.plot(
                *zip(*curve["points"], strict=True),
                style,
                ms=4,
                color=color,
                label=f"{curve['reference']}, {curve['phase']}",
            )
        if sweep["curves"]:
            axis.axhline(sweep["curves"][0]["level"], color="black", ls=":", lw=1)
        axis.set(
            yscale="log",
            title=f"{sweep['name'].split(':')[0]}\n({sweep['tier']})",
            xlabel=sweep["unit"],
            ylabel="reference / W2A2",
        )
        axis.set_xscale("log", base=2)
        values = [point["value"] for point in sweep["points"]]
        shown = values if len(values) < 6 else values[:: -(-len(values) // 5)]
        axis.set_xticks(shown, [f"{value:g}" for value in shown])
        axis.minorticks_off()
        axis.set_yticks(
            ticks := [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256) if axis.get_ylim()[0] <= t <= axis.get_ylim()[1]],
            [f"{t}x" for t in ticks],
        )
    handles, labels = flat[0].get_legend_handles_labels()
    for axis in flat[len(sweeps) :]:
        axis.axis("off")
        axis.legend(handles, labels, frameon=False, loc="center")
    return svg(figure)
