import pytest

from ternbin.contract.hw import NAMED, HwConfig, SearchConfig, load_hw
from ternbin.errors import InputError


def test_named_instances_load_by_name():
    for name, config in NAMED.items():
        assert load_hw(name) is config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rows", 12, "hardware configuration: rows must be a power of two from 4 to 64, not 12"),
        ("kind", "fp8", "hardware configuration: kind must be one of ternary, binary, ternary8, not 'fp8'"),
        ("acc_bits", 64, "hardware configuration: acc_bits must be from 16 to 32, not 64"),
        ("axi_data_bits", 512, "hardware configuration: axi_data_bits must be at most rows x 16 (256), not 512"),
        ("weight_pack", "3bit", "hardware configuration: weight_pack must be '2bit' or '5trit', not '3bit'"),
        ("clock_mhz", 0, "hardware configuration: clock_mhz must be from 0.001 to 100000, not 0"),
    ],
)
def test_impossible_configurations_name_the_field(field, value, message):
    with pytest.raises(InputError) as caught:
        HwConfig(**{field: value})
    assert str(caught.value) == message


def test_a_binary_array_packs_no_trits():
    with pytest.raises(InputError) as caught:
        HwConfig(kind="binary", weight_pack="5trit")
    assert str(caught.value) == "hardware configuration: weight_pack must be 2bit on a binary array, not '5trit'"


def test_planes_of_whole_codes_need_words_that_divide():
    with pytest.raises(InputError) as caught:
        HwConfig(kind="ternary8", abuf_words=1000)
    assert str(caught.value) == (
        "hardware configuration: abuf_words must be a power of two from 128 to 262144 for a ternary8 array, not 1000"
    )


def test_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('kind = "ternary"\nrows = 8\nlanes = 32\n')
    assert (load_hw(str(path)).rows, load_hw(str(path)).name) == (8, "mine")
    path.write_text("rows = \n")
    with pytest.raises(InputError, match="must be TOML, not broken"):
        load_hw(str(path))
    path.write_text("row = 8\n")
    with pytest.raises(InputError) as caught:
        load_hw(str(path))
    assert str(caught.value) == f"{path}: unknown field 'row'"
    with pytest.raises(InputError, match="--hw must be one of"):
        load_hw("nosuch")
    with pytest.raises(InputError, match="cannot be read"):
        load_hw(str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('kv_external = "no"', "kv_external must be true or false, not 'no'"),
        ("kv_external = 0", "kv_external must be true or false, not 0"),
        ("rows = true", "rows must be a power of two from 4 to 64, not true"),
        ('cols = "2"', "cols must be a power of two from 1 to 64, not '2'"),
        ("queue_depth = 4.0", "queue_depth must be a whole number from 1 to 16, not 4.0"),
        ("wbuf_words = 100000000000000000000", "wbuf_words must be from 16 to 1048576, not 100000000000000000000"),
        ("abuf_words = [1024]", "abuf_words must be a whole number from 16 to 1048576, not a list of 1"),
        ("clock_mhz = inf", "clock_mhz must be from 0.001 to 100000, not inf"),
        ("clock_mhz = nan", "clock_mhz must be from 0.001 to 100000, not nan"),
        ('clock_mhz = "350"', "clock_mhz must be a number from 0.001 to 100000, not '350'"),
        ("clock_mhz = true", "clock_mhz must be a number from 0.001 to 100000, not true"),
        ("name = 5", "name must be a text, not 5"),
        ('name = ""', "name must be a text of 1 to 100 printable characters, not ''"),
        ("rows = 64", "hardware configuration: rows must be at most lanes (32), not 64"),
        ("[rows]", "rows must be a power of two from 4 to 64, not an object"),
    ],
)
def test_toml_has_exact_types(tmp_path, line, message):
    path = tmp_path / "mine.toml"
    path.write_text(line)
    with pytest.raises(InputError) as caught:
        load_hw(str(path))
    assert str(caught.value) == f"{path}: {message}"


def test_whole_clocks_are_numbers(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("clock_mhz = 350")
    assert load_hw(str(path)).clock_mhz == 350


def test_what_a_search_adds():
    assert NAMED["tiny"].search is None
    assert NAMED["tiny"].searching(3).search == SearchConfig(beams=3, top=10)
    assert NAMED["tiny"].searching(2, texts=2).search == SearchConfig(beams=4, top=12)
