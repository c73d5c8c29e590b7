"""Draw the small world: `python -m miniature.scenes dataset | textures | photographs | sheet --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m miniature.scenes", description="Draw the small offline world.")
    commands = parser.add_subparsers(dest="command", required=True)

    dataset = commands.add_parser("dataset", help="scenes with captions and truth, resumable after a kill")
    dataset.add_argument("--split", choices=("train", "heldout"), default="train", help="which designs (train)")
    dataset.add_argument("--views", type=int, default=1, help="neighbouring images that show one design (1)")
    textures = commands.add_parser("textures", help="varied pictures that teach an autoencoder more than furniture")
    for command, count in ((dataset, 40_000), (textures, 6_000)):
        command.add_argument("--out", type=Path, required=True, help="folder to write, or to go on writing")
        command.add_argument("--count", type=int, default=count, help=f"number of images ({count})")
        command.add_argument("--size", type=int, default=128, help="pixels a side (128)")
        command.add_argument("--seed", type=int, default=0, help="first seed (0)")
        command.add_argument("--workers", type=int, default=2, help="processes (2)")
        command.add_argument("--samples", type=int, default=2, help="edge smoothing: samples x samples rays (2)")

    photographs = commands.add_parser("photographs", help="the sample photographs: five chairs, five views each")
    photographs.add_argument("--out", type=Path, default=Path("data"), help="folder to write (data)")
    photographs.add_argument("--size", type=int, default=768, help="pixels a side (768)")
    photographs.add_argument("--samples", type=int, default=4, help="edge smoothing (4)")

    sheet = commands.add_parser("sheet", help="a labelled contact sheet of the world")
    sheet.add_argument("--out", type=Path, required=True, help="PNG file to write")
    sheet.add_argument("--columns", type=int, default=10, help="pictures a row (10)")
    sheet.add_argument("--seed", type=int, default=0, help="first seed (0)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "dataset":
            from miniature.scenes.dataset import scene_chunk, write

            settings = {"seed": options.seed, "split": options.split, "samples": options.samples}
            if options.views != 1:
                settings["views"] = options.views
            write(options.out, options.count, options.size, settings, scene_chunk, options.workers)
        elif options.command == "textures":
            from miniature.scenes.dataset import write
            from miniature.scenes.textures import texture_chunk

            settings = {"seed": options.seed, "samples": options.samples}
            write(options.out, options.count, options.size, settings, texture_chunk, options.workers)
        elif options.command == "photographs":
            from miniature.scenes.photographs import write_photographs

            write_photographs(options.out, options.size, options.samples)
        else:
            from miniature.scenes.sheet import write_sheet

            write_sheet(options.out, options.columns, options.seed)
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
