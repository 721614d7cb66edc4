"""`tiir doctor`: what works here, and what does not."""

from __future__ import annotations

import typer

from tiir.cli.options import AsJson, note, show

__all__ = ["doctor_command"]


def doctor_command(as_json: AsJson = False) -> None:
    """Versions, broken libraries, devices, extras, the hub's cache, space. Exit code 1 where something is broken."""
    import json
    from dataclasses import asdict

    from tiir.doctor import examine

    findings = examine()
    broken = [finding for finding in findings if finding.broken]
    if as_json:
        report = {"ok": not broken, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column()
        table.add_column(overflow="fold")
        topic = ""
        for finding in findings:
            first, topic = ("" if finding.topic == topic else finding.topic), finding.topic
            found = ("[red]BROKEN[/red] " if finding.broken else "") + escape(finding.found)
            advice = f"\n-> {escape(finding.advice)}" if finding.advice else ""
            table.add_row(first, finding.name, found + advice)
        show(table)
    if broken:
        note(f"broken: {', '.join(finding.name for finding in broken)}")
        raise typer.Exit(1)
    if not as_json:
        show("nothing is broken")
