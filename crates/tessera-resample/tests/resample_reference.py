"""What sox (`rate -v`) makes of a tone burst at another rate: the table of `decode/resample.rs`.

    python3 tests/resample_reference.py     # needs sox 14.4 alone
"""
import math, struct, subprocess, sys

RATE, TO, FRAMES = 44100, 16000, 441


def burst(at):
    """Three tones, up to 0.81 of half of the lower rate, that swell and fade within the 441 frames."""
    tones = ((1000, 0.3), (3000, 0.2), (6500, 0.15))
    envelope = math.sin(math.pi * (at + 0.5) / FRAMES) ** 2
    return envelope * sum(gain * math.sin(2 * math.pi * hz * at / RATE) for hz, gain in tones)


raw = struct.pack(f"<{FRAMES}f", *map(burst, range(FRAMES)))
kind = ["-t", "f32", "-c", "1", "-r"]
sox = ["sox", *kind, str(RATE), "-", *kind, str(TO), "-", "rate", "-v", str(TO)]
out = subprocess.run(sox, input=raw, capture_output=True, check=True).stdout
out = struct.unpack(f"<{len(out) // 4}f", out)
print(len(out), [round(sample, 6) for sample in out[::8]])
