import subprocess
import sys


def test_stages_without_networks_import_neither_torch_nor_mlflow():
    imports = "import sys; from stages import evaluate, infer, score, split"
    code = f"{imports}; sys.exit(str({{'torch', 'mlflow'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
