"""Makes photographs of nothing, as a simple camera would take them, and tampers with them."""

import io

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256
MARGIN = 64  # what rotating and scaling needs around the middle
TAMPERINGS = ("resampled", "spliced", "recompressed")


def scene(random: np.random.Generator, side: int) -> np.ndarray:
    """Shapes over gradients over noise of a natural spectrum: float64 [side, side, 3], 0 to 255."""
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    frequencies[0, 0] = 1
    slope = random.uniform(1.0, 1.8)

    def texture() -> np.ndarray:
        spectrum = np.fft.fft2(random.standard_normal((side, side))) / frequencies**slope
        noise = np.fft.ifft2(spectrum).real
        return (noise - noise.mean()) / noise.std()

    ramp = np.linspace(-1, 1, side)
    angle = random.uniform(0, 2 * np.pi)
    gradient = np.cos(angle) * ramp[:, None] + np.sin(angle) * ramp[None, :]
    shared = texture()
    canvas = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(3, 12)):
        x, y = random.uniform(0, side, 2)
        w, h = random.uniform(side / 12, side / 2, 2)
        colour = tuple(int(c) for c in random.integers(10, 246, 3))
        if random.random() < 0.5:
            draw.ellipse([x - w / 2, y - h / 2, x + w / 2, y + h / 2], fill=colour)
        else:
            corners = random.uniform(-0.5, 0.5, (int(random.integers(3, 7)), 2)) * [w, h] + [x, y]
            draw.polygon([tuple(corner) for corner in corners], fill=colour)
    shapes = np.asarray(canvas, np.float64)
    ground = random.uniform(60, 190, 3) + gradient[..., None] * random.uniform(-40, 40, 3)
    base = np.where(shapes.sum(axis=2, keepdims=True) > 0, shapes, ground)
    contrast = random.uniform(4, 28)
    detail = np.stack([0.8 * shared + 0.3 * texture() for _ in range(3)], axis=2)
    return np.clip(base + contrast * detail, 0, 255)


def photograph(random: np.random.Generator, side: int) -> np.ndarray:
    """A scene through a Bayer filter with sensor noise, each colour filled in from its neighbours: uint8."""
    light = scene(random, side)
    read, shot = random.uniform(0.8, 2.5), random.uniform(0.05, 0.25)
    light = light + random.standard_normal(light.shape) * np.sqrt(read**2 + shot * light)
    rows, columns = np.mgrid[:side, :side]
    masks = [
        (rows % 2 == 0) & (columns % 2 == 0),
        (rows + columns) % 2 == 1,
        (rows % 2 == 1) & (columns % 2 == 1),
    ]
    filled = [interpolated(light[..., c] * mask, mask) for c, mask in enumerate(masks)]
    return np.clip(np.round(np.stack(filled, axis=2)), 0, 255).astype(np.uint8)


def interpolated(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the mask kept, and else the mean of what it kept among the eight around, near ones counting twice."""
    weights = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]], np.float64)
    padded, kept = np.pad(values, 1, mode="reflect"), np.pad(mask.astype(np.float64), 1, mode="reflect")
    side = values.shape[0]
    total, count = np.zeros_like(values), np.zeros_like(values)
    for dy in range(3):
        for dx in range(3):
            total += weights[dy, dx] * padded[dy : dy + side, dx : dx + side]
            count += weights[dy, dx] * kept[dy : dy + side, dx : dx + side]
    return np.where(mask, values, total / np.maximum(count, 1))


def jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG with the chroma subsampling that cameras use."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=2)
    return out.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def resample(random: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Scaled, turned or both, and the middle of it cut out."""
    image = Image.fromarray(pixels)
    how = random.choice([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
    if random.random() < 0.4:
        image = image.rotate(float(random.choice([-1, 1]) * random.uniform(2, 20)), resample=how)
    else:
        scale = random.choice([random.uniform(0.75, 0.95), random.uniform(1.05, 1.8)])
        size = max(SIDE, round(image.width * scale))
        image = image.resize((size, size), resample=Image.Resampling(how))
    left = (image.width - SIDE) // 2
    return np.asarray(image.crop((left, left, left + SIDE, left + SIDE)))


def middle(pixels: np.ndarray) -> np.ndarray:
    start = (pixels.shape[0] - SIDE) // 2
    return pixels[start : start + SIDE, start : start + SIDE]


def splice(random: np.random.Generator, host: np.ndarray, guest: np.ndarray) -> np.ndarray:
    """A part of another photograph, brought to size, in place of a tenth to half of this one."""
    mask = Image.new("L", (SIDE, SIDE))
    w, h = random.uniform(0.4, 0.75, 2) * SIDE
    x, y = random.uniform(0.3, 0.7, 2) * SIDE
    box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    draw = ImageDraw.Draw(mask)
    draw.ellipse(box, fill=255) if random.random() < 0.5 else draw.rectangle(box, fill=255)
    inside = np.asarray(mask)[..., None] > 0
    return np.where(inside, resample(random, guest), host)


def make_image(seed: int, tampering: str | None) -> bytes:
    """A JPEG file, the same for the same seed: untouched, or tampered with in one way."""
    random = np.random.default_rng(seed)
    side = SIDE + 2 * MARGIN
    quality = int(random.integers(85, 97))
    taken = photograph(random, side)
    if tampering is None:
        return jpeg(middle(taken), quality)
    if tampering == "recompressed":
        return jpeg(pixels_of(jpeg(middle(taken), int(random.integers(40, 76)))), quality)
    # What is tampered with was a file before.
    saved = pixels_of(jpeg(taken, int(random.integers(85, 97))))
    if tampering == "resampled":
        return jpeg(resample(random, saved), quality)
    guest = pixels_of(jpeg(photograph(random, side), int(random.integers(85, 97))))
    return jpeg(splice(random, middle(saved), guest), quality)
