"""From ranks to reasons: what each query retrieved, how two models differ, and why queries fail."""

from tiir.analysis.background import Background, background
from tiir.analysis.compare import Comparison, compare
from tiir.analysis.counterfactual import rescore_typos
from tiir.analysis.diagnose import Diagnosis, diagnose
from tiir.analysis.queries import galleries_of, query_table
from tiir.analysis.slices import slices
from tiir.analysis.study import chosen, samples
from tiir.analysis.study_files import read_study
from tiir.analysis.tables import write_table

__all__ = [
    "Background",
    "Comparison",
    "Diagnosis",
    "background",
    "chosen",
    "compare",
    "diagnose",
    "galleries_of",
    "query_table",
    "read_study",
    "rescore_typos",
    "samples",
    "slices",
    "write_table",
]
