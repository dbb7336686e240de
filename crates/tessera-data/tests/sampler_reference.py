"""The arithmetic of src/sampler.rs, written apart: its output is what the tests there pin.

Run: python3 crates/tessera-data/tests/sampler_reference.py
"""

MASK = (1 << 64) - 1


def mix(value):
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def sample_at(seed, num_samples, index):
    half_bits = max(1, ((num_samples - 1).bit_length() + 1) // 2)
    half = (1 << half_bits) - 1
    base = mix((mix(seed) + index // num_samples) & MASK)
    block = index % num_samples
    while True:
        left, right = block >> half_bits, block & half
        for round_number in range(8):
            key = mix((base + round_number) & MASK)
            left, right = right, left ^ (mix((right + key) & MASK) & half)
        block = (left << half_bits) | right
        if block < num_samples:
            return block


if __name__ == "__main__":
    print([sample_at(0, 10, index) for index in range(10)])
    print([sample_at(0, 10, index) for index in range(10, 20)])
    print([sample_at(7, 60000, index) for index in (0, 1, 2, 59999, 60000, 123456)])
    print([sample_at(1, MASK, index) for index in (0, 1, MASK - 1)])
