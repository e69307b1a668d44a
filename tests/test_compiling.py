"""Loops are compiled with a cache on disk, and without one where there is no place for it."""

import subprocess
import sys

CODE = '''
source = """
from xtalk.compiling import compiled

@compiled()
def double(x):
    return 2 * x
"""
made = {}
exec(compile(source, FILE, "exec"), made)
print(made["double"](21), made["double"].stats.cache_path)
'''


def ran(file: str, home: str) -> list[str]:
    """What the loop returns and where it is cached, in a process of its own with that home."""
    command = [sys.executable, "-c", f"FILE = {file!r}\n{CODE}"]
    env = {"HOME": home, "XDG_CACHE_HOME": home, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.split()


def test_without_a_place_to_write_loops_are_compiled_without_a_cache():
    assert ran("/dev/null/loops.py", "/dev/null") == ["42", "None"]


def test_with_one_they_are_cached(tmp_path):
    (tmp_path / "loops.py").write_text("")
    assert ran(str(tmp_path / "loops.py"), "/dev/null") == ["42", str(tmp_path / "__pycache__")]
    assert list((tmp_path / "__pycache__").glob("*.nbi"))
