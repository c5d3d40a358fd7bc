"""The printed digits of the paper's table follow from the shapes of BART-base."""

from ternbin.models.task.paper import bart_base, count, paper_table


def test_sizes_and_factors_to_the_printed_digit():
    table = paper_table()
    assert {bits: f"{row['size_mib']:.1f}" for bits, row in table.items()} == {
        "32-32-32": "532.0",
        "8-8-8": "138.1",
        "2-2-8": "39.6",
        "2-2-2": "39.6",
        "1-1-8": "23.2",
        "1-1-1": "23.2",
    }
    assert [f"{row['flops_factor']:.4g}" for row in table.values()] == ["1", "1", "0.25", "0.0625", "0.125", "0.01562"]
    assert 0.5 < table["2-2-2"]["size_with_scales_mib"] - table["2-2-2"]["size_mib"] < 0.6


def test_counts_of_bart_base():
    counted = count(bart_base())
    assert (counted.quantized, counted.rows, counted.full) == (137_693_952, 151_641, 1_726_464 + 50_265)
