import pyarrow as pa
import pytest

from pipeline.collection.external_ids import ExternalIds
from pipeline.imports.candidate_batches import id_array
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace


def ids_of(tmp_path, external):
    file = tmp_path / "c"
    file.write_text("".join(f"{name}\ttext\n" for name in external))
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    import_msmarco(workspace, file, [], [])
    return ExternalIds(workspace, "passages")


@pytest.mark.parametrize(
    "external",
    [
        ["0", "1", "2", "3"],
        ["30", "7", "12", "9000000000"],
        ["p1", "x", "ß", "007"],
        ["5", "p5", "-5", "05", "5.0", "99999999999999999999"],
        ["7", "999999999999999999", "1000000000000000000", "9223372036854775807", "-1000000000000000000"],
    ],
)
def test_ids_are_found_as_they_are_written(tmp_path, external):
    ids = ids_of(tmp_path, external)
    absent = ["", "4", "-1", "00", "p", "9" * 30, "1 "]
    wanted = [*reversed(external), *(name for name in absent if name not in external)]
    expected = [external.index(name) if name in external else -1 for name in wanted]
    assert ids.find(pa.array(wanted)).tolist() == expected
    numbers = [int(name) for name in external if name == str(int(name) if name.lstrip("-").isdigit() else "")]
    numbers = [number for number in numbers if abs(number) < 2**63]
    assert ids.find(pa.array([*numbers, 77], pa.int64())).tolist() == [*(external.index(str(n)) for n in numbers), -1]


def test_numbers_of_64_bits_without_a_sign(tmp_path):
    ids = ids_of(tmp_path, ["-1", "18446744073709551615", "3"])
    assert ids.find(pa.array([2**64 - 1, 3, 2**63], pa.uint64())).tolist() == [1, 2, -1]
    assert ids.find(id_array([2**64 - 1, 3])).tolist() == [1, 2]
