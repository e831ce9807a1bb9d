"""The peers' own virtual environment, `build/bench-env`: made on demand, with the same torch as ours.

`python -m harness.peers` makes it complete; the speed benchmark adds what it needs by itself.
"""

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

from competitors import COMPETITORS, Competitor

ENVIRONMENT = Path(__file__).resolve().parents[2] / "build" / "bench-env"
FREEZE = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"


def python() -> Path:
    """The interpreter of the peers' environment."""
    return ENVIRONMENT / "bin" / "python"


def install(competitor: Competitor) -> str:
    """Install what one peer needs; gives back why it can not be had, or nothing."""
    torch = f"torch=={version('torch').partition('+')[0]}"
    try:
        if not python().exists():
            venv.create(ENVIRONMENT, with_pip=True)
        _pip([torch])
        _pip([*competitor.requirements], f"{torch}\ntorchvision<0\n")
        _pip([*competitor.without_dependencies], options=("--no-deps",))
    except (OSError, subprocess.CalledProcessError) as error:
        return last_line(getattr(error, "stderr", None) or str(error))
    return ""


def last_line(text: str) -> str:
    """The last line of a program's complaint, which usually says what is wrong."""
    return (text.strip().splitlines() or ["no message"])[-1]


def _pip(requirements: list[str], constraints: str = "", options: tuple[str, ...] = ()) -> None:
    """Install those requirements that are missing.

    The constraints keep torch as it is, and make a peer that asks for torchvision fail rather than bring it.
    """
    present = _present()
    missing = [wanted for wanted in requirements if wanted.lower() not in present]
    if missing:
        file = ENVIRONMENT / "constraints.txt"
        file.write_text(constraints)
        command = [python(), "-m", "pip", "install", "--quiet", *options, "--constraint", file, *missing]
        subprocess.run(command, check=True, capture_output=True, text=True)


def _present() -> set[str]:
    """What the environment holds, each as `name` and as `name==version` without a local part."""
    done = subprocess.run([python(), "-c", FREEZE], check=True, capture_output=True, text=True)
    pins = {pin.partition("+")[0].lower() for pin in done.stdout.split()}
    return pins | {pin.partition("==")[0] for pin in pins}


if __name__ == "__main__":
    for name, peer in COMPETITORS.items():
        if peer.is_peer:
            print(f"{name}: {install(peer) or 'ready'}", file=sys.stderr)
