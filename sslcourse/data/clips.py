"""Clips: a set of short videos of one size in memory, where they come from, and their random view."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor

from sslcourse.data.augment import Augment, center_view
from sslcourse.data.images import Images
from sslcourse.data.resample import resized_crop
from sslcourse.data.rng import mix, shard_rows
from sslcourse.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png")
CLIPS_N = 1000  # clips of the embedded world where the caller does not say how many


@dataclass(frozen=True)
class ClipSet(Images):
    """Clips as one uint8 tensor, for methods that learn from clips; all else as in `Images`.

    Attributes:
        images: (N, 3, T, H, W) uint8.
    """

    name: str = "clips"

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 5 or self.images.shape[1] != 3:
            raise InputError(f"ClipSet holds uint8 (N, 3, T, H, W); got {self.images.dtype} {(*self.images.shape,)}.")
        if self.labels.shape != self.images.shape[:1]:
            raise InputError(f"ClipSet got {len(self.images)} clips but {len(self.labels)} labels.")


def load_clips(
    name_or_path: str | Path, split: str = "train", *, size: int = 64, frames: int = 16, stride: int = 1,
    n: int | None = None, seed: int = 0,
) -> ClipSet:  # fmt: skip
    """Clips of the embedded world ("shapes", labelled with the motion of the nearest object), or real ones from a path.

    Paths: `davis.zip` or the folder it lies in, or a folder of folders of frames (jpg or png, in order of their names),
    one a video; a png beside a jpg of its name is that frame's mask and left out. From a long video clips of `frames`
    frames are cut one after the other. Real clips are labelled with their video.

    Args:
        size: side in pixels; real frames are resized and centre-cropped.
        frames: of a clip; stride: between its frames.
        n: how many clips at most; of "shapes" 1000 by default.

    Raises:
        InputError: an unknown name, a number below 1, a folder without frames, a frame that cannot be read, a video
            shorter than a clip (and no longer one).
    """
    if min(size, frames, stride, 1 if n is None else n) < 1:
        raise InputError(f"load_clips takes numbers of 1 or more; got {size=}, {frames=}, {stride=}, {n=}.")
    path = Path(name_or_path)
    if str(name_or_path) == "shapes":
        from sslcourse.data.shapes import Shapes
        from sslcourse.data.shapes.clips import MOTIONS

        drawn = Shapes(split, size, seed).clips(range(n or CLIPS_N), frames=frames)
        return ClipSet(drawn.video, drawn.motion, list(MOTIONS), "shapes-clips")
    if not path.exists():
        raise InputError(f"there are no clips {name_or_path}; name shapes, davis.zip or a folder of folders.")
    clips: list[Tensor] = []
    labels: list[int] = []
    names: list[str] = []
    longest, span = 0, (frames - 1) * stride + 1
    for name, video in _videos(path, size):
        longest = max(longest, video.shape[1])
        starts = range(0, video.shape[1] - span + 1, span)
        clips += [video[:, start : start + span : stride] for start in starts]
        labels += [len(names)] * len(starts)
        names.append(name)
    if not longest:
        raise _no_frames(path)
    if not clips:
        raise InputError(
            f"{path} has no video of {span} frames: the longest has {longest}, and a clip of {frames} frames with "
            f"stride {stride} needs {span}; take fewer frames, a smaller stride or longer videos."
        )
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(mix(seed)))[:n].sort().values.tolist()
    return ClipSet(torch.stack([clips[i] for i in order]), torch.tensor(labels)[order], names, path.stem)


def _videos(path: Path, size: int) -> Iterator[tuple[str, Tensor]]:
    """Names and (3, T, size, size) uint8 of every video."""
    from sslcourse.data.load import zip_in

    archive = zip_in(path)
    if archive or path.is_file():
        from sslcourse.data.zips import DavisPack, open_zip

        pack = open_zip(archive or path)
        if not isinstance(pack, DavisPack):
            raise InputError(f"{path} holds images, not clips.")
        yield from ((clip.name, _square(clip.video.transpose(0, 1), size)) for clip in pack)
        return
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        frames = [_square(_read(file)[None], size) for file in _frames(folder)]
        if frames:
            yield folder.name, torch.cat(frames, dim=1)


def _frames(folder: Path) -> list[Path]:
    """The image files of a video in order, without the masks that DAVIS keeps beside them."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    photos = {file.stem for file in files if file.suffix.lower() != ".png"}
    return [file for file in files if file.suffix.lower() != ".png" or file.stem not in photos]


def _read(file: Path) -> Tensor:
    """(3, H, W) uint8."""
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    from sslcourse.data.decode import to_rgb

    try:
        with Image.open(file) as image:
            return pil_to_tensor(to_rgb(image))
    except Exception as error:  # whatever a broken file makes a decoder raise
        raise InputError(f"{file} is no readable image; replace it, or leave its video out.") from error


def _no_frames(path: Path) -> InputError:
    """What to say of a path without a single frame of a video."""
    if path.is_file():
        return InputError(f"{path} has no clips.")
    entries = sorted(path.iterdir())
    archive = next((entry for entry in entries if entry.suffix.lower() == ".zip"), None)
    if archive:
        return InputError(f"{path} has no folders of frames; name the archive that is in it, {archive}.")
    loose = "holds images, but " if any(entry.suffix.lower() in _SUFFIXES for entry in entries) else "has "
    return InputError(f"{path} {loose}no folders of frames; give the frames of each video (jpg, png) a folder in it.")


def _square(frames: Tensor, size: int) -> Tensor:
    """(T, 3, H, W) uint8 -> (3, T, size, size) uint8."""
    small = center_view(frames, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return (255 * small).round().clamp(0, 255).to(torch.uint8).transpose(0, 1)


def clip_view(clips: Tensor, augment: Augment, generator: Generator, *, frames: int = 1) -> Tensor:
    """One random crop and flip a clip, the same in all frames: (B, 3, T, H, W) uint8 -> (B, 3, T, size, size) float.

    Images (B, 3, H, W) are clips of `frames` frames in which nothing moves.

    Colours are standardised and otherwise left alone, as VideoMAE does (Tong et al. 2022, appendix).
    """
    if clips.ndim == 4:
        clips = clips[:, :, None].expand(-1, -1, frames, -1, -1)
    if clips.ndim != 5 or clips.dtype != torch.uint8:
        raise InputError(f"clips are (B, 3, T, H, W) uint8; got {clips.dtype} {(*clips.shape,)}.")
    if augment.jitter_p or augment.gray or augment.blur or augment.solarize:
        raise InputError("the view of a clip is a crop and a flip; set jitter_p, gray, blur and solarize to 0.")
    b, _, t, height, width = clips.shape
    total, mine = shard_rows(b, generator)
    draws = augment.draw(total, height, width, generator=generator).rows(mine).to(clips.device)
    boxes, flip = (x.repeat_interleave(t, dim=0) for x in (draws.boxes, draws.flip))
    view = resized_crop(clips.transpose(1, 2).flatten(0, 1), boxes, augment.size, flip)
    mean, std = (view.new_tensor(value).view(3, 1, 1) for value in (augment.mean, augment.std))
    return ((view - mean) / std).unflatten(0, (b, t)).transpose(1, 2)


def sample_clip(
    n_frames: int, clip: int, stride: int, mode: Literal["random", "center"] = "random", rng: Generator | None = None
) -> Tensor:
    """Which frames of a video make a clip: (clip,) int64 in [0, n_frames), `stride` apart.

    "random" starts anywhere that the clip fits, both ends included; "center" in the middle, for evaluation. A video
    that is too short stays on its last frame.

    Raises:
        InputError: nothing to choose from, an unknown mode, or "random" without `rng`.
    """
    if min(n_frames, clip, stride) < 1 or mode not in ("random", "center") or (mode == "random" and rng is None):
        raise InputError(
            f"sample_clip takes frames, a clip and a stride of 1 or more, mode 'random' with a generator or 'center'; "
            f"got {n_frames=}, {clip=}, {stride=}, {mode=}."
        )
    room = max(n_frames - ((clip - 1) * stride + 1), 0)
    start = room // 2 if mode == "center" else int(torch.randint(room + 1, (), generator=rng))
    return (start + stride * torch.arange(clip)).clamp(max=n_frames - 1)
