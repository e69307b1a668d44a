"""`python -m benchmarks`: what `xtalk bench` does."""

import typer

from xtalk.cli.timing import bench

if __name__ == "__main__":
    typer.run(bench)
