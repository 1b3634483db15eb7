"""The public names of `import callboard`, for type checkers."""

from callboard.analysis.pair import compare as compare
from callboard.core.errors import UserError as UserError
from callboard.features.log_mel import log_mel as log_mel
from callboard.params.features import FrontEndParams as FrontEndParams
from callboard.reports.notebook import board as board
from callboard.reports.notebook import oof_scores as oof_scores
from callboard.reports.notebook import oof_truth as oof_truth
from callboard.reports.notebook import parameters as parameters
from callboard.scoring.detector import Detector as Detector
from callboard.scoring.metrics import lwlrap as lwlrap
