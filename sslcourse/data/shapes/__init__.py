"""The embedded world: scenes drawn from signed distance functions, with every label the course needs."""

from sslcourse.data.shapes.clips import MOTIONS, Clips
from sslcourse.data.shapes.scene import PARTS, Scene, Scenes
from sslcourse.data.shapes.sdf import CLASSES
from sslcourse.data.shapes.settings import BACKGROUNDS, COLOURS, DOMAINS, LABELS, PRESETS, TEXTURES, Settings
from sslcourse.data.shapes.world import Shapes

__all__ = [
    "BACKGROUNDS", "CLASSES", "COLOURS", "DOMAINS", "LABELS", "MOTIONS", "PARTS", "PRESETS", "TEXTURES",
    "Clips", "Scene", "Scenes", "Settings", "Shapes",
]  # fmt: skip
