"""A roofline as SVG (https://doi.org/10.1145/1498765.1498785): operations per second over operations per byte."""

from math import log10
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 400, 60, 40
INTENSITIES = (0.1, 10000.0)


def draw(path: Path, points: list[tuple[str, float, float]], bytes_s: float, flops: float, machine: str) -> None:
    """Draws points of (name, operations per byte, operations per second) below the limits `bytes_s` and `flops`."""
    low, high = flops / 1e5, flops * 2

    def place(intensity: float, rate: float) -> tuple[float, float]:
        x = log10(max(intensity, INTENSITIES[0]) / INTENSITIES[0]) / log10(INTENSITIES[1] / INTENSITIES[0])
        y = log10(max(rate, low) / low) / log10(high / low)
        return LEFT + x * (WIDTH - LEFT - 10), HEIGHT - BOTTOM - y * (HEIGHT - BOTTOM - 20)

    roof = [place(x, min(flops, x * bytes_s)) for x in (INTENSITIES[0], flops / bytes_s, INTENSITIES[1])]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="10"><rect width="100%" height="100%" fill="white"/>',
        f'<polyline fill="none" stroke="black" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in roof)}"/>',
        f'<text x="{LEFT}" y="14">{machine}: {bytes_s / 1e12:.2f} TB/s, {flops / 1e12:.0f} TFLOP/s</text>',
        f'<text x="{WIDTH // 2}" y="{HEIGHT - 8}" text-anchor="middle">operations a byte</text>',
        f'<text x="12" y="{HEIGHT // 2}" transform="rotate(-90 12 {HEIGHT // 2})" text-anchor="middle">'
        "operations a second</text>",
    ]
    for name, intensity, rate in points:
        x, y = place(intensity, rate)
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{x + 5:.1f}" y="{y - 4:.1f}">{name}</text>')
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")
