"""Makes a recording small enough for docs/gallery.md: python docs/thin_gif.py episode.gif docs/images/gallery-x.gif."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageSequence

FRAMES = 60
WIDTH = 200


def main(source: Path, target: Path) -> None:
    with Image.open(source) as recording:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(recording)]
        milliseconds = len(frames) * int(recording.info["duration"])
    stride = -(-len(frames) // FRAMES)
    kept = frames[::stride]
    size = (WIDTH, round(WIDTH * frames[0].height / frames[0].width))
    small = [frame.resize(size, Image.Resampling.LANCZOS).quantize(32, dither=Image.Dither.NONE) for frame in kept]
    # Browsers slow down what is faster than 50 frames in a second.
    duration = max(20, milliseconds // len(kept))
    small[0].save(target, save_all=True, append_images=small[1:], duration=duration, loop=0, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
