"""Every format of labels on files of its real shape, and what each refuses."""

from pathlib import Path

import pandas as pd
import pytest

from callboard.core.errors import UserError
from callboard.data.label_formats.form import LABEL_COLUMNS, ReadOptions, recording_name, recording_of_table
from callboard.data.label_formats.registry import LABEL_FORMATS, recognised_format


def tabs(text: str) -> str:
    """A table with bars for tabs."""
    return text.replace("|", "\t")


RAVEN = tabs("""\
Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|Delta Time (s)|\
Annotation
1|Waveform 1|1|6.709509878|15.096397225|||8.3869|Great Tit
1|Spectrogram 1|1|6.709509878|15.096397225|1739.012|3798.813|8.3869|Great Tit
2|Waveform 1|1|29.383026016|40.257059266|||10.8740|Wren
2|Spectrogram 1|1|29.383026016|40.257059266|1587.060|4136.485|10.8740|Wren
3|Spectrogram 1|1|50.0|51.0|1587.060|4136.485|1.0000|
""")
RAVEN_OF_A_SEQUENCE = tabs("""\
Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|Begin File|\
File Offset (s)|Species
1|Spectrogram 1|1|5.0|6.0|1000|3000|a.wav|5.0|European Robin
2|Spectrogram 1|1|65.25|66.75|1000|3000|b.wav|5.25|Wren
""")
AUDACITY = tabs("""\
1.250000|4.500000|Wren
\\|1000.000000|3000.000000
5.000000|5.000000|marker
6.000000|7.500000|Great Tit
\\|-1.000000|3000.000000
8.000000|9.000000|
""")
JOB = """\
id,recording,site,year,month,day,hour,minute,species,songtype,x1,x2,y1,y2,frequency,validated,url,score,site_id
1,BIO_20240319_135700.WAV,Bio,2024,3,19,14,1,Amazona,Simple Call,9.5,11.0,1031.25,23062.5,24000,present,https://a.org/p/177031027,0.21,5
2,BIO_20240319_135700.WAV,Bio,2024,3,19,13,58,Amazona,Simple Call,1.5,2.75,1031.25,23062.5,24000,not present,https://a.org/p/177031024,0.15,5
3,BIO_20240319_133600.WAV,Bio,2024,3,19,13,36,Amazona,Song,45.75,47.0,1031.25,23062.5,24000,(not validated),https://a.org/p/177031034,0.22,5
"""
BULK = """\
x1,y1,x2,y2,score,validated,site_id,recording_id,recording_local_time,site_name,audio_url
9.5,1031.25,11.0,23062.5,0.21,1,5,177031027,2024-03-19 14:01:00,Bio,https://a.org/p.wav
1.5,1031.25,2.75,23062.5,0.15,0,5,177031024,2024-03-19 13:58:00,Bio,https://a.org/p.wav
45.75,1031.25,47.0,23062.5,0.22,---,5,177031034,2024-03-19 13:36:00,Bio,https://a.org/p.wav
"""
JOBS = """\
job_id,job_name,template_id,species_id,scientific_name,songtype
2640,amazona,17,1501,Amazona albifrons,Simple Call
2641,wren,18,1502,Troglodytes aedon,Song
"""
BACKUP = """\
pattern_matching_roi_id,pattern_matching_id,recording_id,species_id,songtype_id,x1,y1,x2,y2,score,validated
7,2640,177031027,1501,3,9.5,1031.25,11.0,23062.5,0.21,1
8,2640,177031024,1501,3,1.5,1031.25,2.75,23062.5,0.15,0
9,2640,177031034,1501,3,45.75,1031.25,47.0,23062.5,0.22,
"""
BIRDNET_CSV = """\
Start (s),End (s),Scientific name,Common name,Confidence,File
0.0,3.0,Turdus merula,Eurasian Blackbird,0.8123,/data/site1/rec1.wav
3.0,6.0,Erithacus rubecula,European Robin,0.4411,/data/site1/rec2.wav
"""
BIRDNET_RAVEN_2_4 = tabs("""\
Selection|View|Channel|Begin Time (s)|End Time (s)|Low Freq (Hz)|High Freq (Hz)|Common Name|\
Species Code|Confidence|Begin Path|File Offset (s)
1|Spectrogram 1|1|0.0|3.0|0|15000|Eurasian Blackbird|eurbla1|0.87|/data/rec.wav|0.0
2|Spectrogram 1|1|60.0|63.0|0|15000|nocall|nocall|1.0|/data/quiet.wav|0.0
3|Spectrogram 1|1|126.0|129.0|0|15000|Common Chaffinch|comcha|0.42|/data/other.wav|6.0
""")
BIRDNET_RAVEN_MAIN = tabs("""\
Selection|Begin Time (s)|End Time (s)|Common Name|Scientific Name|Species Code|Confidence|View|\
Channel|File Offset (s)|Low Freq (Hz)|High Freq (Hz)|Begin Path
1|0.0|3.0|Eurasian Blackbird|Turdus merula|eurbla1|0.8123|Spectrogram 1|1|0.0|0|15000|/data/rec1.wav
2|63.0|66.0|European Robin|Erithacus rubecula|eurrob1|0.4411|Spectrogram 1|1|3.0|0|15000|\
/data/rec2.wav
""")
HAWKEARS = """\
recording,name,start_time,end_time,score
marsh,COYE,1.250,4.250,0.912
night.wav,CONI,2.000,4.000,
"""
HAWKEARS_RAVEN = tabs("""\
Selection|View|Channel|Begin Time (s)|End Time (s)|Common Name|Scientific Name|Species Code|\
eBird Code|Species|Confidence|File Offset (s)|Low Freq (Hz)|High Freq (Hz)|Begin File|Begin Path
1|Spectrogram 1|1|1.25|4.25|Common Yellowthroat|Geothlypis trichas|COYE|comyel|COYE|0.91|1.25|500|\
8000|marsh.wav|/data/marsh.wav
""")
OPENSOUNDSCAPE = """\
audio_file,annotation_file,annotation,start_time,end_time,low_f,high_f
/data/rec1.wav,rec1.txt,Wren,1.5,2.5,1000.0,3000.0
"""
BRITEKIT = "recording,class,start_time,end_time\nmarsh,COYE,1.5,4.5\n"
BACPIPE = "audiofilename,start,end,label:species\nrec1.wav,1.5,4.5,Wren\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, format_name: str | None = None, **options: object) -> list[tuple[object, ...]]:
    """Labels as (recording, species, songtype, t_min, t_max, f_min, f_max, verdict)."""
    return rows(
        LABEL_FORMATS[format_name or recognised_format(path)].read(path, ReadOptions(**options)).labels
    )


def rows(labels: pd.DataFrame) -> list[tuple[object, ...]]:
    assert list(labels.columns) == LABEL_COLUMNS
    return [tuple(None if cell != cell else cell for cell in row) for row in labels.itertuples(index=False)]


SHAPES = {
    "raven": ("rec1.Table.1.selections.txt", RAVEN),
    "raven of a sequence": ("all.txt", RAVEN_OF_A_SEQUENCE),
    "audacity": ("rec1.txt", AUDACITY),
    "arbimon of a job": ("pm-a-2640.csv", JOB),
    "arbimon in bulk": ("pm_a_2640.csv", BULK),
    "arbimon's jobs": ("_pattern_matching.csv", JOBS),
    "arbimon of a backup": ("rois.csv", BACKUP),
    "birdnet": ("BirdNET_CombinedTable.csv", BIRDNET_CSV),
    "birdnet 2.4 for Raven": ("BirdNET_SelectionTable.txt", BIRDNET_RAVEN_2_4),
    "birdnet of today for Raven": ("BirdNET_SelectionTable.txt", BIRDNET_RAVEN_MAIN),
    "hawkears": ("scores.csv", HAWKEARS),
    "hawkears for Raven": ("marsh.HawkEars.selection.table.txt", HAWKEARS_RAVEN),
    "csv of OpenSoundscape": ("labels.csv", OPENSOUNDSCAPE),
    "csv of BriteKit": ("labels.csv", BRITEKIT),
    "csv of bacpipe": ("annotations.csv", BACPIPE),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_format_is_recognised_by_its_first_line(shape: str, tmp_path: Path) -> None:
    assert recognised_format(write(tmp_path, *SHAPES[shape])) == shape.split()[0].removesuffix("'s")


@pytest.mark.parametrize("shape", SHAPES)
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(shape: str, tmp_path: Path) -> None:
    name, text = SHAPES[shape]
    write(tmp_path, "_pattern_matching.csv", JOBS)
    plain = write(tmp_path, name, text)
    expected = read(plain)
    plain.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert read(plain) == expected


def test_a_raven_selection_counts_once_with_the_band_of_its_spectrogram(tmp_path: Path) -> None:
    path = write(tmp_path, "rec1.Table.1.selections.txt", RAVEN)
    assert read(path) == [
        ("rec1", "Great Tit", "1", 6.709509878, 15.096397225, 1739.012, 3798.813, "present"),
        ("rec1", "Wren", "1", 29.383026016, 40.257059266, 1587.060, 4136.485, "present"),
    ]
    table = LABEL_FORMATS["raven"].read(path, ReadOptions())
    assert table.left_out == {"further views of a selection": 2, "selections that name no species": 1}
    assert table.recordings == ["rec1"]
    assert table.labels.index.tolist() == [f"rec1.Table.1.selections.txt row {line}" for line in (3, 5)]


def test_a_selection_made_in_the_waveform_alone_is_a_label_without_a_band(tmp_path: Path) -> None:
    text = "\n".join(line for line in RAVEN.splitlines() if "Spectrogram" not in line) + "\n"
    assert [row[1:] for row in read(write(tmp_path, "rec1.txt", text))] == [
        ("Great Tit", "1", 6.709509878, 15.096397225, None, None, "present"),
        ("Wren", "1", 29.383026016, 40.257059266, None, None, "present"),
    ]


def test_times_of_a_sequence_of_files_count_from_the_start_of_each(tmp_path: Path) -> None:
    assert read(write(tmp_path, "all.txt", RAVEN_OF_A_SEQUENCE)) == [
        ("a.wav", "European Robin", "1", 5.0, 6.0, 1000.0, 3000.0, "present"),
        ("b.wav", "Wren", "1", 5.25, 6.75, 1000.0, 3000.0, "present"),
    ]


def test_a_table_of_raven_without_rows_is_a_recording_in_which_nothing_was_found(tmp_path: Path) -> None:
    path = write(tmp_path, "rec1.Table.1.selections.txt", RAVEN.splitlines()[0] + "\n")
    table = LABEL_FORMATS["raven"].read(path, ReadOptions())
    assert table.labels.empty
    assert table.recordings == ["rec1"]


def test_the_second_line_of_audacity_is_the_band_of_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "rec1.txt", AUDACITY)
    assert read(path) == [
        ("rec1", "Wren", "1", 1.25, 4.5, 1000.0, 3000.0, "present"),
        ("rec1", "Great Tit", "1", 6.0, 7.5, None, None, "present"),
    ]
    left_out = LABEL_FORMATS["audacity"].read(path, ReadOptions()).left_out
    assert left_out == {"labels of a point in time": 1, "labels that name no species": 1}


@pytest.mark.parametrize(
    ("text", "species"),
    [
        ("0.0\t3.0\tTurdus merula, Eurasian Blackbird\t0.8123\n", "Turdus merula, Eurasian Blackbird"),
        ("2\t4\tMAWR;0.88\n", "MAWR"),
    ],
)
def test_scores_of_detectors_in_audacity_are_open(text: str, species: str, tmp_path: Path) -> None:
    path = write(tmp_path, "marsh_scores.txt", text)
    ((recording, found, *_, verdict),) = read(path)
    assert (recording, found, verdict) == ("marsh", species, "open")
    assert read(path, verdict="present")[0][-1] == "present"


def test_an_empty_audacity_file_is_a_recording_without_labels_if_one_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "quiet_scores.txt", "")
    assert LABEL_FORMATS["audacity"].read(path, ReadOptions()).recordings == ["quiet"]
    with pytest.raises(UserError, match="is empty; --from audacity reads it as a recording without"):
        recognised_format(path)


VALIDATED = [
    ("177031027", 9.5, 11.0, "present"),
    ("177031024", 1.5, 2.75, "absent"),
    ("177031034", 45.75, 47.0, "open"),
]


@pytest.mark.parametrize(
    ("shape", "species", "songtypes"),
    [
        ("arbimon of a job", "Amazona", ["Simple Call", "Simple Call", "Song"]),
        ("arbimon in bulk", "Amazona albifrons", ["Simple Call"] * 3),
        ("arbimon of a backup", "1501", ["3"] * 3),
    ],
)
def test_each_export_of_arbimon_gives_verdicts_and_song_types(
    shape: str, species: str, songtypes: list[str], tmp_path: Path
) -> None:
    write(tmp_path, "_pattern_matching.csv", JOBS)
    assert read(write(tmp_path, *SHAPES[shape])) == [
        (recording, species, songtype, t_min, t_max, 1031.25, 23062.5, verdict)
        for (recording, t_min, t_max, verdict), songtype in zip(VALIDATED, songtypes, strict=True)
    ]


def test_a_verdict_for_tables_without_one_does_not_change_unvalidated_rows(tmp_path: Path) -> None:
    assert [row[-1] for row in read(write(tmp_path, "job.csv", JOB), verdict="present")] == [
        "present",
        "absent",
        "open",
    ]


def test_minutes_of_an_original_file_on_disk_are_added_to_the_times(tmp_path: Path) -> None:
    """13:58 and 14:01 are one and four minutes into the file that started at 13:57."""
    path = write(tmp_path, "job.csv", JOB)
    known = ["BIO_20240319_135700", "BIO_20240319_133600"]
    assert [(row[0], row[3], row[4]) for row in read(path, known=known)] == [
        ("BIO_20240319_135700", 249.5, 251.0),
        ("BIO_20240319_135700", 61.5, 62.75),
        ("BIO_20240319_133600", 45.75, 47.0),
    ]
    assert [row[0] for row in read(path, known=[*known, "177031024"])][1] == "177031024"
    night = write(tmp_path, "night.csv", JOB.replace("_135700", "_235700").replace(",14,1,", ",0,1,"))
    assert read(night, known=["BIO_20240319_235700"])[0][3] == 249.5


def test_an_original_file_without_a_time_in_its_name_cannot_be_split(tmp_path: Path) -> None:
    path = write(tmp_path, "job.csv", JOB.replace("BIO_20240319_135700", "morning"))
    with pytest.raises(UserError, match=r"row 2: recording 'morning.WAV' has no start time in its name"):
        read(path, known=["morning"])
    once = write(tmp_path, "once.csv", "\n".join(path.read_text().splitlines()[:2]) + "\n")
    assert read(once, known=["morning"])[0][:5] == ("morning", "Amazona", "Simple Call", 9.5, 11.0)


def test_the_table_of_arbimons_jobs_has_no_labels_of_its_own(tmp_path: Path) -> None:
    assert read(write(tmp_path, "_pattern_matching.csv", JOBS)) == []


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (
            "birdnet",
            [
                ("/data/site1/rec1.wav", "Turdus merula", 0.0),
                ("/data/site1/rec2.wav", "Erithacus rubecula", 3.0),
            ],
        ),
        (
            "birdnet 2.4 for Raven",
            [("/data/rec.wav", "Eurasian Blackbird", 0.0), ("/data/other.wav", "Common Chaffinch", 6.0)],
        ),
        (
            "birdnet of today for Raven",
            [("/data/rec1.wav", "Turdus merula", 0.0), ("/data/rec2.wav", "Erithacus rubecula", 3.0)],
        ),
        ("hawkears", [("marsh", "COYE", 1.25), ("night.wav", "CONI", 2.0)]),
        ("hawkears for Raven", [("/data/marsh.wav", "COYE", 1.25)]),
    ],
)
def test_detections_are_open_and_without_a_band(
    shape: str, expected: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    path = write(tmp_path, *SHAPES[shape])
    found = read(path)
    assert [(row[0], row[1], row[3]) for row in found] == expected
    assert {row[5:] for row in found} == {(None, None, "open")}
    assert {row[-1] for row in read(path, verdict="absent")} == {"absent"}


def test_a_recording_in_which_birdnet_found_nothing_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, "BirdNET_SelectionTable.txt", BIRDNET_RAVEN_2_4)
    table = LABEL_FORMATS["birdnet"].read(path, ReadOptions())
    assert table.recordings == ["/data/other.wav", "/data/quiet.wav", "/data/rec.wav"]
    assert table.left_out["rows 'nocall': nothing found"] == 1


def test_the_column_of_the_species_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "BirdNET_CombinedTable.csv", BIRDNET_CSV)
    assert [row[1] for row in read(path, column="Common name")] == ["Eurasian Blackbird", "European Robin"]


def test_segments_of_birdnet_have_the_verdict_of_their_folder(tmp_path: Path) -> None:
    for name in (
        "Turdus merula/Positive/0.812_1_rec_1_3.00s_6.00s.wav",
        "Turdus merula/Negative/0.401_2_rec_1_9.00s_12.00s.wav",
        "Turdus merula/0.300_3_rec_2_0.00s_3.00s.wav",
        "Turdus merula/Positive/notes.txt",
        "0.300_3_rec_2_0.00s_3.00s.wav",
    ):
        write(tmp_path / "segments", name, "")
    assert recognised_format(tmp_path / "segments") == "birdnet"
    assert {(row[0], *row[3:]) for row in read(tmp_path / "segments")} == {
        ("rec_1", 3.0, 6.0, None, None, "present"),
        ("rec_1", 9.0, 12.0, None, None, "absent"),
        ("rec_2", 0.0, 3.0, None, None, "open"),
    }
    table = LABEL_FORMATS["birdnet"].read(tmp_path / "segments", ReadOptions())
    assert table.left_out == {"files that are not segments": 2}


def test_a_csv_has_usual_columns_in_any_order_and_case(tmp_path: Path) -> None:
    expected = [("/data/rec1.wav", "Wren", "1", 1.5, 2.5, 1000.0, 3000.0, "present")]
    assert read(write(tmp_path, "labels.csv", OPENSOUNDSCAPE)) == expected
    own = "Verdict,T_max,t_min,Species_id,score\nNo,2.5,1.5,Wren,0.3\nunsure,4.5,3.5,Wren,0.3\n"
    assert read(write(tmp_path, "rec1.csv", own)) == [
        ("rec1", "Wren", "1", 1.5, 2.5, None, None, "absent"),
        ("rec1", "Wren", "1", 3.5, 4.5, None, None, "open"),
    ]


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("rec.1.Table.1.selections.txt", "rec.1"),
        ("rec.BirdNET.selection.table.txt", "rec"),
        ("rec.BirdNET.results.csv", "rec"),
        ("rec.callboard.selections.txt", "rec"),
        ("rec.callboard.txt", "rec"),
        ("rec_scores.txt", "rec"),
        ("rec.2024.txt", "rec.2024"),
    ],
)
def test_the_name_of_a_table_gives_its_recording(name: str, recording: str) -> None:
    assert recording_of_table(Path("folder") / name) == recording


@pytest.mark.parametrize(
    "name", ["rec.1.WAV", "/data/site/rec.1.flac", "D:\\data\\rec.1.mp3", "rec.1", "site/rec.1"]
)
def test_a_recording_is_named_by_its_file_without_folder_and_suffix(name: str) -> None:
    assert recording_name(name) == "rec.1"


def without(text: str, column: str) -> str:
    """Return a table without one of its columns."""
    delimiter = "\t" if "\t" in text else ","
    lines = [line.split(delimiter) for line in text.splitlines()]
    place = lines[0].index(column)
    return "".join(delimiter.join(cells[:place] + cells[place + 1 :]) + "\n" for cells in lines)


WRONG = {
    "number": ("raven", RAVEN.replace("29.383026016", "x", 1), "row 4: Begin Time .s. 'x' is not a finite"),
    "ragged": ("raven", RAVEN.replace("\tWren", "", 1), "row 4: 8 cells, but the header has 9"),
    "order": ("raven", RAVEN.replace("40.257059266", "29"), "row 5: end 29.0 s is not after start 29.383"),
    "one edge": ("raven", RAVEN.replace("1739.012", ""), "row 3: band –3798.813 Hz has only one edge"),
    "band": ("raven", RAVEN.replace("3798.813", "5"), "row 3: band ends at 5 Hz, not above its start at 17"),
    "species": ("raven", without(RAVEN, "Annotation"), "which column gives the species.*Delta Time"),
    "two of species": (
        "raven",
        RAVEN.replace("Delta Time (s)", "Label"),
        "Label, Annotation could all be it; --column NAME says which",
    ),
    "no end": ("raven", without(RAVEN, "End Time (s)"), "missing column.s. End Time .s.; found Selection"),
    "offsets": ("raven", without(RAVEN_OF_A_SEQUENCE, "File Offset (s)"), "2 recordings without 'File Off"),
    "no offset": (
        "raven",
        RAVEN_OF_A_SEQUENCE.replace("\t5.25\t", "\t\t"),
        "row 3: File Offset .s. '' is",
    ),
    "comma": ("audacity", AUDACITY.replace("1.25", "1,25"), "row 1: t_min '1,250000' is not a finite num"),
    "negative": ("audacity", AUDACITY.replace("1.25", "-1.25"), "row 1: t_min -1.250000 is negative"),
    "lone band": ("audacity", "\\\t1.0\t2.0\n" + AUDACITY, "row 1: a band must be two numbers after a label"),
    "two bands": ("audacity", AUDACITY.replace("8.0", "\\\t1\t2\n8.0"), "row 6: a band must be two numbers"),
    "one cell": ("audacity", AUDACITY + "Wren\n", "row 7: 1 cells, expected start, end, label"),
    "verdict": ("arbimon", JOB.replace("not present", "maybe"), "row 3: verdict 'maybe' is unknown"),
    "url": ("arbimon", JOB.replace("/177031024", "/"), "row 3: url 'https://a.org/p/' does not end in the"),
    "no verdicts": ("arbimon", without(JOB, "validated"), "missing column.s. validated; found id"),
    "no jobs": ("arbimon", BULK, "not found; it gives the species of .*; unpack the whole zip"),
    "infinite": ("birdnet", BIRDNET_CSV.replace("6.0", "inf"), "row 3: t_max 'inf' is not a finite number"),
    "no start": ("birdnet", without(BIRDNET_CSV, "Start (s)"), "missing column.s. Start .s.; found End"),
    "no stop": ("hawkears", without(HAWKEARS, "end_time"), "which column gives the end in seconds.*start"),
    "blank": ("csv", BRITEKIT.replace("COYE", " "), "row 2: species is empty"),
    "edge": ("csv", without(OPENSOUNDSCAPE, "low_f"), "has only one edge of the band"),
    "milliseconds": (
        "csv",
        BRITEKIT.replace("start_time", "start_ms"),
        "which column gives the start in sec",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    format_name, text, words = WRONG[case]
    name = {"audacity": "rec.txt", "arbimon": "pm_a_2640.csv"}.get(format_name, "table")
    with pytest.raises(UserError, match=words) as caught:
        read(write(tmp_path, name, text), format_name)
    assert name in str(caught.value)


def test_a_job_must_be_in_the_table_of_jobs_once(tmp_path: Path) -> None:
    write(tmp_path, "_pattern_matching.csv", JOBS.replace("2640", "9"))
    with pytest.raises(UserError, match=r"0 rows for job 2640 of pm_a_2640.csv, expected one"):
        read(write(tmp_path, "pm_a_2640.csv", BULK))
    with pytest.raises(UserError, match=r"bulk.csv: the name must be pm_<name>_<job>.csv"):
        read(write(tmp_path, "bulk.csv", BULK))


def test_files_of_other_kinds_are_not_recognised(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its format is not recognised, it begins with 'Field notes'"):
        recognised_format(write(tmp_path, "notes.txt", "Field notes\nmore\n"))
    with pytest.raises(UserError, match=r"nowhere.txt: not found"):
        recognised_format(tmp_path / "nowhere.txt")
    (tmp_path / "sound.wav").write_bytes(b"RIFF\xff\xfe\x80")
    with pytest.raises(UserError, match=r"sound\.wav: not UTF-8"):
        recognised_format(tmp_path / "sound.wav")
    write(tmp_path / "folder", "a.wav", "")
    with pytest.raises(UserError, match="has no segments of BirdNET"):
        read(tmp_path / "folder")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "folder", "raven")


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'Call'; columns are Selection, View"):
        read(write(tmp_path, "rec1.txt", RAVEN), column="Call")
