"""Equal seeds give equal people, hands, pictures and labels on every processor.

NumPy's random generator asks the C library for a logarithm in one draw of some thousands (the tails of its bell
shapes); nothing else in a shard depends on code chosen by the processor.
"""

import json

import pytest

from tests.processors import PROCESSORS, run_on

RECORDED = {
    "landmarks": "bdfc5e5598fdbec8",
    "poses": "9c7faf2033ab8a82",
    "bodies": "5454cd6bd2b7b250",
    "looks": "5579bcdbc58794a1",
    "colours": "cb0abf2a808a8159",
    "garments": "caee95a7342cb0c1",
    "hands": "4335085245e24228",
    "shard of open": "51a5b65bf711cdaa",
    "shard of open_hand": "4bda8097ba7e887c",
}
"""What `python -m tests.synthetic.digests` prints."""


@pytest.mark.parametrize("processor", PROCESSORS)
def test_seeds_give_the_recorded_bytes(processor):
    # Kernels are compiled for the oldest processor too; for each of them it would take a minute more.
    told = run_on(
        processor,
        "from runpy import run_module; run_module('tests.synthetic.digests', run_name='__main__')",
        numba=processor == "PRESCOTT",
    )
    assert json.loads(told) == RECORDED
