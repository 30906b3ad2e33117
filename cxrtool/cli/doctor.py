"""`cxrtool doctor`."""

from __future__ import annotations

import typer

from cxrtool.cli import options


def doctor(
    ctx: typer.Context,
    style: options.Format = "table",
    cache: options.Cache = None,
    quiet: options.Quiet = False,
) -> None:
    """Check this machine and installation.

    Versions, whether torch and torchvision fit each other, processor, memory, GPU, disk space and the readers of
    compressed DICOM. What is not ok has a line of advice. Exits with code 1 if something fails.

    Example: cxrtool doctor
    """
    from cxrtool.cli.console import check_format, print_table
    from cxrtool.commands import doctor as step

    check_format(style)
    settings = options.settings(ctx)
    findings = step.doctor(step.DoctorOptions(), settings)
    if style == "table":
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            typer.echo(f"{finding.state:4}  {finding.what.ljust(width)}  {finding.found}")
            if finding.advice:
                typer.echo(f"{'':{width + 8}}{finding.advice}")
    else:
        columns = ["what", "state", "found", "advice"]
        print_table(columns, [[f.what, f.state, f.found, f.advice] for f in findings], style)
    failed = sum(finding.state == step.FAIL for finding in findings)
    warned = sum(finding.state == step.WARN for finding in findings)
    settings.report.say(f"{failed} fail, {warned} warn" if failed or warned else "all is well")
    if failed:
        raise typer.Exit(1)
