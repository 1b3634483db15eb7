import math

from callboard.core.compute import Compute
from callboard.training.curve import write_curve
from callboard.training.losses.terms import TERMS


def test_the_curve_has_a_line_per_epoch_and_blanks_where_there_is_no_number(tmp_path):
    history = [
        {"epoch": 1, "lr": 0.001, "loss": 1.25, "attention": 0.5, "val_lwlrap": None, "val_loss": None},
        {"epoch": 2, "lr": 0.0005, "loss": 1.0, "attention": 1 / 3, "val_lwlrap": 0.75, "val_loss": 0.25},
        {"epoch": 3, "lr": 0.0, "loss": 1.0, "attention": 0.25, "val_lwlrap": math.nan, "val_loss": math.nan},
    ]
    first = Compute("cpu", "AMD EPYC (AVX2)", 1, "float32", "2.14.1")
    second = Compute("cuda", "NVIDIA H200", 2, "bfloat16", "2.14.1")  # resumed there
    write_curve(history, [first, second, second], tmp_path / "plots" / "curve.csv")
    blanks = "," * (len(TERMS) - 1)  # of the terms after attention, the first
    assert (tmp_path / "plots" / "curve.csv").read_text().splitlines() == [
        f"epoch,lr,loss,{','.join(TERMS)},val_lwlrap,val_loss,device,processor,threads,precision,torch",
        f"1,0.001,1.25,0.5{blanks},,,cpu,AMD EPYC (AVX2),1,float32,2.14.1",
        f"2,0.0005,1,0.333333{blanks},0.75,0.25,cuda,NVIDIA H200,2,bfloat16,2.14.1",
        f"3,0,1,0.25{blanks},,,cuda,NVIDIA H200,2,bfloat16,2.14.1",
    ]
