"""The values that the tests of `src/report/delta.rs` compare with. Needs the package bjontegaard 1.3.0.

python3 bd_rate.py
"""
import bjontegaard

A = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
B = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]
C = [(200.0, 22.0), (260.0, 24.5), (410.0, 25.0), (800.0, 29.5), (1600.0, 31.0)]
D = [(230.0, 23.0), (400.0, 26.5), (800.0, 30.0), (1600.0, 34.0), (3000.0, 39.0)]

for number, (anchor, test) in enumerate([(A, B), (B, A), (C, D)], 1):
    columns = [list(column) for curve in (anchor, test) for column in zip(*sorted(curve))]
    print(f"BD_{number}", bjontegaard.bd_rate(*columns, method="pchip", min_overlap=0))
