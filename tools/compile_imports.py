"""Import what commands, tasks and tests import, so that Python keeps it compiled.

Installing compiles nothing (most of 20,000 modules are never used), and where the environment says
PYTHONDONTWRITEBYTECODE, as images often do, Python would compile anew whatever a process imports:
seconds for each task of a run.
"""

from importlib import import_module
from pkgutil import walk_packages

OWN = ("xcflow", "xcflow_components", "xcflow_pipelines")
IMPORTED_LATE = (
    "boto3.session",
    "faiss",
    "great_expectations",
    "great_expectations.expectations.core",
    "huggingface_hub",
    "hypothesis",
    "kfp.compiler",
    "kfp.dsl.executor_main",
    "kfp.local",
    "matplotlib.pyplot",
    "mlflow.data.dataset_source_registry",
    "mlflow.pyfunc",
    "mlflow.server.fastapi_app",
    "mlflow.store.tracking.sqlalchemy_store",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "pyarrow.parquet",
    "pytest",
    "rich.progress",
    "sklearn.isotonic",
    "sklearn.linear_model",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)


def main() -> None:
    """Import everything; what cannot be imported is an error."""
    for package in map(import_module, OWN):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    for name in IMPORTED_LATE:
        import_module(name)


if __name__ == "__main__":
    main()
