"""`tessera track` killed again and again, at times drawn from a seed, until it ends by itself."""

import random
import subprocess


def until_done(command, environment, seed, least, most, kills=1000):
    """Runs the command, each time for between `least` and `most` seconds; the number of kills."""
    draw = random.Random(seed)
    for number in range(kills):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said, _ = process.communicate(timeout=draw.uniform(least, most))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            # Each kill leaves a little more time, so that there is an end.
            most *= 1.05
            continue
        assert process.returncode == 0, said.decode()
        return number, said.decode()
    raise AssertionError("never done")
