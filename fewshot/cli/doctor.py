"""The command that examines this machine."""

from __future__ import annotations

import click

from .terminal import fast_mlx, print_table, showing_progress


@click.command()
@click.option(
    "--seconds", default=30.0, show_default=True, help="Time to measure for; 0: do not measure."
)
def doctor(seconds: float) -> None:
    """What makes MLX fast here, whether its results are right, and how fast it is."""
    runtime = fast_mlx()
    from importlib.metadata import version

    import attrs
    import mlx.core as mx

    from ..compute.compiling import compiles, on_cpu
    from ..data import cache
    from ..engine.doctor import checks, speeds

    facts = {"mlx": version("mlx"), "device": str(mx.default_device()), **attrs.asdict(runtime)}
    facts.pop("hint")  # already on stderr
    try:
        facts["images and embeddings"] = (
            f"{cache.place() or 'not kept'}, {cache.kept() / 1e6:.0f} MB"
        )
    except OSError as error:
        facts["images and embeddings"] = f"not kept: {error}"
    facts["compiled at run time"] = "by MLX, what it is asked to" if compiles() else "nothing"
    print_table(
        ["runtime", ""], [[name.replace("_", " "), str(facts[name] or "-")] for name in facts]
    )
    results = list(checks())
    print_table(
        ["against NumPy in float64", "error", ""],
        [[c.what, f"{c.error:.0e}", "good" if c.passed else "WRONG"] for c in results],
    )
    if on_cpu() and compiles():
        raise click.ClickException(
            "MLX compiles on the CPU, into a folder that others may share: something has called "
            "mx.enable_compile()"
        )
    if not all(check.passed for check in results):
        raise click.ClickException(
            "MLX computes wrongly here: try FEWSHOT_RUNTIME=stock, which leaves it as installed"
        )
    if seconds > 0:
        with showing_progress() as progress:
            found = speeds(seconds, lambda done, total: progress("measuring", done, total, "", ""))
        print_table(["conv4, 64x64 images", ""], list(found.items()), right=True)


COMMANDS = (doctor,)
