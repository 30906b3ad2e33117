"""Draws the radiographs of this folder: `python sample_data/draw.py` writes them anew, with the same bytes.

Each picture is a sum of attenuations along parallel rays (soft tissue, air in the lungs, heart, spine, ribs, vessels,
lesions), exposed, scattered, made noisy and developed. They are plain: good enough to show and test a chain of
commands, not to measure how well a method does on patients.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
SEED = 20202
WORK = 256
"""Side in pixels at which everything is drawn."""

Array = np.ndarray
Generator = np.random.Generator

PATIENTS = {"normal": 56, "pathological": 56, "covid": 72}
SEVERITIES = {"normal-pcr+": (0, 0), "mild": (1, 2), "moderate": (3, 5), "severe": (6, 8)}
"""Severity, and the least and largest extent: 0 to 4 a lung, by the share of it that is affected."""

COLUMNS = ("path", "label", "patient_id", "severity", "source", "view", "age", "sex", "mask", "extent")


@dataclass(frozen=True)
class Source:
    """Where a picture is meant to come from: its size, its development and its kind of file."""

    name: str
    size: tuple[int, int]
    gamma: float
    marker: str
    file: str


SOURCES = (
    Source("north", (224, 224), 1.0, "L", "jpg"),
    Source("south", (208, 240), 0.85, "R", "png"),
    Source("east", (192, 208), 1.1, "", "png16"),
    Source("west", (200, 200), 0.95, "L", "dcm"),
)
SHARES = (0.7, 0.22, 0.04, 0.04)


def soft(distance: Array, width: float) -> Array:
    """1 inside a shape (negative distance), 0 outside, with an edge of some width."""
    return 1.0 / (1.0 + np.exp(np.clip(distance / width, -40.0, 40.0)))


def ellipse(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float], width: float) -> Array:
    """A soft ellipse."""
    return soft(((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 - 1, width)


def cloud(generator: Generator, cells: int) -> Array:
    """Smooth noise with about `cells` cells along a side."""
    values = generator.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(values, (WORK, WORK), interpolation=cv2.INTER_CUBIC)


def plane(generator: Generator, child: bool) -> tuple[Array, Array]:
    """Coordinates of the body, from -0.5 to 0.5: shifted, turned and scaled against those of the picture."""
    y, x = np.mgrid[0:WORK, 0:WORK].astype(np.float32) / WORK - 0.5
    x, y = x - generator.normal(0, 0.04), y - generator.normal(0, 0.04)
    angle = generator.normal(0, 0.07)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    zoom = generator.uniform(0.86, 1.2)
    # A bend of the whole plane, so that no two bodies are one another's copies.
    x, y = x + 0.009 * cloud(generator, 4), y + 0.012 * cloud(generator, 4)
    return x / (zoom * generator.uniform(0.9, 1.08) * (0.9 if child else 1.0)), y / zoom


def draw_lungs(generator: Generator, x: Array, y: Array, depth: float, rough: Array) -> list[Array]:
    """Right and left lung, as shares of a ray that run through air."""
    lungs = []
    breadth = generator.uniform(0.125, 0.145)
    for side in (-1, 1):
        top, bottom = -0.36 + generator.normal(0, 0.015), 0.24 + depth + generator.normal(0.008 * side, 0.01)
        v = (y - (top + bottom) / 2) / ((bottom - top) / 2)
        width = breadth * (1 - generator.uniform(0.2, 0.4) * np.clip(-v, 0, 1) ** 2) + 0.018 * v
        u = x * side - 0.185 - 0.015 * v
        dome = 0.0625 * (u / 0.12) * (v > 0)
        lungs.append(soft((np.abs(u / width) ** 2.6 + np.abs(v + dome) ** 4.5) ** (1 / 3) - 1 + rough * 4, 0.035))
    return lungs


def draw_bones(generator: Generator, x: Array, y: Array, child: bool) -> Array:
    """Ribs with their brighter edges, clavicles, shoulder blades and spine."""
    half = 0.0125 * (0.8 if child else 1.0)
    bones = 0.22 * soft(np.abs(x) - 0.035, 0.008) * (0.75 + 0.25 * np.cos(y * 2 * np.pi * 14))
    for side in (-1, 1):
        u = x * side
        out = np.clip(u, 0, 0.36)
        for rib in range(10):
            start = -0.36 + 0.066 * rib + generator.normal(0, 0.003)
            back = start + 0.03 - 0.10 * np.sin(np.clip(out / 0.30, 0, 1) * np.pi * 0.62)
            distance = np.abs(y - back - 0.42 * np.clip(out - 0.17, 0, 1) ** 1.4)
            along = soft(0.03 - u, 0.008) * soft(u - 0.33, 0.01) * soft(y - 0.30, 0.01)
            bones += along * (0.12 * soft(distance - half, 0.003) + 0.07 * np.exp(-(((distance - half) / 0.004) ** 2)))
            if rib < 7:
                front = np.abs(y - start - 0.09 - 0.28 * np.clip(0.27 - out, 0, 1))
                bones += 0.07 * soft(front - half * 1.1, 0.005) * soft(0.11 - u, 0.02) * soft(u - 0.27, 0.02)
        clavicle = np.abs(y + 0.33 - 0.10 * out + 0.02 * np.sin(u * 8))
        bones += 0.22 * soft(clavicle - 0.014, 0.004) * soft(0.03 - u, 0.01) * soft(u - 0.33, 0.01)
        bones += 0.13 * ellipse(u, y, (0.34, -0.13), (0.07, 0.16), 0.15)
    return bones


def draw_vessels(generator: Generator) -> Array:
    """Branches that leave the hila and thin out."""
    canvas = np.zeros((WORK, WORK), np.float32)
    for side in (-1, 1):
        for _ in range(16):
            point = np.array([0.5 + side * 0.075 + generator.normal(0, 0.008), 0.5 + generator.uniform(-0.06, 0.06)])
            angle, width = generator.uniform(-1.4, 1.5), generator.uniform(1.6, 3.0)
            for _ in range(26):
                end = point + 0.012 * np.array([side * np.cos(angle), np.sin(angle)])
                ends = [tuple(int(value) for value in place * WORK * 8) for place in (point, end)]
                cv2.line(canvas, *ends, min(1.0, width / 2.4), max(1, round(width)), cv2.LINE_AA, 3)
                point, angle, width = end, angle + generator.normal(0, 0.17), width * 0.945
                if generator.random() < 0.1:
                    angle += generator.choice([-0.5, 0.5])
    return cv2.GaussianBlur(canvas, (0, 0), 0.8)


def draw_lesions(generator: Generator, x: Array, y: Array, lungs: list[Array], label: str, extent: int) -> Array:
    """Opacities: of covid peripheral, low and in both lungs; of other disease anywhere in one lung, and denser."""
    covid = label == "covid"
    lesions = np.zeros_like(x)
    if not extent:
        return lesions
    parts = [extent // 2, extent - extent // 2] if covid else [0, extent]
    generator.shuffle(parts)
    for lung, part in zip(lungs, parts, strict=True):
        inside = lung > 0.5
        outward = (np.abs(x) - np.abs(x)[inside].mean()) / np.abs(x)[inside].std()
        downward = (y - y[inside].mean()) / y[inside].std()
        wish = (0.55, 0.45) if covid else (0.2 * generator.normal(), 0.6 * generator.normal())
        field = cloud(generator, 7) + 0.5 * cloud(generator, 14) + wish[0] * outward + wish[1] * downward
        if part:
            border = np.quantile(field[inside], 1 - min(0.95, part * 0.23))
            lesions += soft(border - field, 0.22 if covid else 0.1) * lung
    density = generator.uniform(0.26, 0.42) if covid else generator.uniform(0.3, 0.5)
    grain = 1 + cloud(generator, 40) * (0.3 if covid else 0.15)
    return density * np.clip(lesions, 0, 1) * grain


def draw(generator: Generator, label: str, extent: int, age: int) -> tuple[Array, Array]:
    """One picture: grey values (256, 256) in [0, 1], and its lung mask."""
    child = age < 12
    x, y = plane(generator, child)
    rough = cloud(generator, 5) * 0.006
    trunk = (np.abs(x) / (0.44 + 0.05 * np.clip(y + 0.2, -0.3, 0.4))) ** 4
    body = soft(trunk + (np.clip(-y - 0.38, 0, 1) * 9) ** 2 - 1 + rough * 6, 0.03)
    body = np.maximum(body, soft(np.abs(x) - 0.13 - 0.5 * np.clip(y + 0.42, -0.05, 1), 0.02) * (y < -0.3))
    depth = generator.uniform(-0.06, 0.06)
    lungs = draw_lungs(generator, x, y, depth, rough)
    size = generator.uniform(0.8, 1.15)
    low = generator.normal(0.12, 0.015)
    turn = (x - 0.045) + generator.uniform(0.1, 0.5) * (y - low)
    heart = ellipse(turn + 0.045, y, (0.045, low), (0.125 * size, 0.155 * size), 0.08)
    knob = ellipse(x, y, (0.045, -0.17), (0.045 * size, 0.055), 0.15)
    air = np.clip(lungs[0] + lungs[1], 0, 1) * (1 - 0.95 * heart) * (1 - 0.6 * knob)
    attenuation = body * 1.55 * (1 - 0.4 * np.abs(x)) - 0.95 * air * body + 0.36 * heart + 0.18 * knob
    attenuation += 0.28 * soft(np.abs(x) - 0.045 - 0.02 * (y + 0.3), 0.012)
    attenuation += 0.21 * soft(0.27 + depth - y - 0.05 * np.cos(x * 9), 0.02) * body
    attenuation -= generator.uniform(0.06, 0.3) * ellipse(x, y, (0.17, 0.33 + depth), (0.09, 0.05), 0.1)
    attenuation += draw_bones(generator, x, y, child) * body
    attenuation += 0.16 * draw_vessels(generator) * air * body
    attenuation += draw_lesions(generator, x, y, [lung * (1 - heart) for lung in lungs], label, extent)
    attenuation += 0.02 * cloud(generator, 24) * body
    mask = np.where((lungs[0] + lungs[1]) * (1 - heart) > 0.5, 255, 0).astype(np.uint8)
    return expose(generator, attenuation), mask


def expose(generator: Generator, attenuation: Array) -> Array:
    """From attenuation to grey values in [0, 1], dense tissue bright: scatter, noise, logarithm, window, sharpness."""
    light = np.exp(-1.55 * attenuation * generator.uniform(0.9, 1.1))
    light = light + 0.05 * cv2.GaussianBlur(light, (0, 0), WORK * 0.06)
    noise = generator.normal(0, 0.0035 * generator.uniform(0.6, 1.6), light.shape) * np.sqrt(light)
    film = -np.log(np.maximum(light + noise, 1e-4))
    margin = WORK // 20
    low, high = np.quantile(film[margin:-margin, margin:-margin], (0.01, 0.995))
    grey = np.clip((film - low) / (high - low), 0, 1) ** generator.uniform(0.9, 1.12)
    return cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 0.6)


def develop(picture: Array, source: Source) -> Array:
    """A source's look: its size (width, height), its curve, its letter beside the shoulder."""
    picture = cv2.resize(picture, source.size, interpolation=cv2.INTER_AREA) ** source.gamma
    if source.marker:
        left = 0.9 if source.marker == "L" else 0.04
        place = (int(source.size[0] * left), int(source.size[1] * 0.1))
        letter = np.zeros(picture.shape, np.uint8)
        cv2.putText(letter, source.marker, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
        picture = np.maximum(picture, letter / np.float32(270))
    return np.clip(picture, 0, 1)


def write(path: Path, picture: Array, kind: str, row: dict[str, str]) -> None:
    """Write a picture as the kind of file that its source makes."""
    if kind == "dcm":
        write_dicom(path, np.round(picture * 4095).astype(np.uint16), row)
    elif kind == "png16":
        cv2.imwrite(str(path), np.round(picture * 65535).astype(np.uint16))
    else:
        flags = [cv2.IMWRITE_JPEG_QUALITY, 88] if kind == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
        cv2.imwrite(str(path), np.round(picture * 255).astype(np.uint8), flags)


def write_dicom(path: Path, values: Array, row: dict[str, str]) -> None:
    """Write 12 bits as DICOM; every second one the other way round, as MONOCHROME1."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    number = row["patient_id"].removeprefix("drawn-")
    inverted = int(number) % 2 == 0
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = f"2.25.{SEED}{number}"
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, f"2.25.{SEED}{number}"
    data.Modality, data.ViewPosition, data.PatientID = "CR", row["view"], row["patient_id"]
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = (4095 - values if inverted else values).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def patients() -> list[tuple[str, str]]:
    """Label and severity of every patient, one after the other."""
    severities = list(SEVERITIES)
    pairs = [(label, "") for label in ("normal", "pathological") for _ in range(PATIENTS[label])]
    return pairs + [("covid", severities[i % len(severities)]) for i in range(PATIENTS["covid"])]


def main() -> None:
    """Draw everything anew."""
    for folder in ("images", "masks"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    rows = []
    for number, (label, severity) in enumerate(patients()):
        generator = np.random.default_rng([SEED, number])
        # Source, age, sex and view are drawn without a look at the class: none of them tells it.
        source = SOURCES[generator.choice(len(SOURCES), p=SHARES)]
        age = int(generator.integers(5, 12) if generator.random() < 0.12 else generator.integers(18, 88))
        low, high = SEVERITIES.get(severity, (1, 4) if label == "pathological" else (0, 0))
        for visit in range(2 if generator.random() < 0.15 else 1):
            extent = int(generator.integers(low, high + 1))
            suffix = "png" if source.file == "png16" else source.file
            name = f"{label[:3]}{number:03}-{visit}"
            row = {
                "path": f"images/{label}/{name}.{suffix}", "label": label, "patient_id": f"drawn-{number:03}",
                "severity": severity, "source": source.name, "view": str(generator.choice(["PA", "AP"], p=[0.8, 0.2])),
                "age": str(age), "sex": str(generator.choice(["F", "M"])), "mask": f"masks/{name}.png",
                "extent": str(extent),
            }  # fmt: skip
            picture, mask = draw(generator, label, extent, age)
            for folder in (HERE / "images" / label, HERE / "masks"):
                folder.mkdir(parents=True, exist_ok=True)
            write(HERE / row["path"], develop(picture, source), source.file, row)
            cv2.imwrite(str(HERE / row["mask"]), cv2.resize(mask, source.size, interpolation=cv2.INTER_NEAREST_EXACT))
            rows.append(row)
    with (HERE / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
