"""The commands of the tutorial, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fairway.net.ports import claim_port
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "tutorial" / "laptop.md"


def test_every_command_works(tmp_path: Path, environment: dict[str, str]) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    port = str(claim_port("127.0.0.1", 0, ""))
    script = "\n".join(blocks).replace("8500", port)
    paths = f"{Path(sys.executable).parent}:{environment['PATH']}"
    settings = {"PATH": paths, "TF_DATASET": "embedded", "TF_REST_API_PORT": port, "TF_PORT": "0"}
    done = subprocess.run(
        # One session for the whole page, whose background jobs end with it.
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"set -m; trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}",
        ],
        cwd=tmp_path,
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"state":"AVAILABLE"' in re.sub(r"\s", "", done.stdout)
    assert '"predictions"' in done.stdout
