# SPDX-License-Identifier: Apache-2.0
"""Rules of the code base that no compiler checks: dependencies, names, lists, versions.

Each rule is a function from the text of a file to the list of its violations. It is applied to
the files of the repository, and to a bad text to show that it can fail.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------------------------- C++ includes

LAYERS = ["base", "tensor", "kernels", "ops", "network"]  # each includes itself and those before
TOPS = ["api", "bindings", "tools"]  # each includes itself and all layers
KERNELS_SEE = ("base/", "kernels/", "tensor/dtype.h", "tensor/outliers.h", "tensor/qparams.h")
ENGINES = ("kernels/neon/", "kernels/x86/")
INTRINSICS = {
    "arm_neon.h": "cpp/kernels/neon",
    "arm_fp16.h": "cpp/kernels/neon",
    "immintrin.h": "cpp/kernels/x86",
}


def check_includes(path: str, text: str) -> list[str]:
    """Includes of a file under cpp/ go downwards, and intrinsics stay in their folders."""
    layer = path.split("/")[1]
    allowed = [*LAYERS, layer] if layer in TOPS else LAYERS[: LAYERS.index(layer) + 1]
    folder = path.rpartition("/")[0]
    problems = []
    for name in re.findall(r'^\s*#\s*include\s+[<"](.+)[>"]', text, re.MULTILINE):
        if name.split("/")[0] in LAYERS + TOPS:
            down = name.split("/")[0] in allowed
            if layer == "kernels":
                down = name.startswith(KERNELS_SEE)
            if not down:
                problems.append(f"{path}: {layer} may not include {name}")
            if name.startswith(ENGINES) and f"cpp/{name}".rpartition("/")[0] != folder:
                problems.append(f"{path}: reach {name} through kernels/variants.inc")
        home = INTRINSICS.get(name, folder)
        if folder != home:
            problems.append(f"{path}: {name} belongs under {home}")
    return problems


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("cpp/base/bad.h", '#include "tensor/dtype.h"'),
        ("cpp/tensor/bad.h", '#include "kernels/conv.h"'),
        ("cpp/kernels/bad.cpp", '#include "tensor/tensor.h"'),
        ("cpp/kernels/bad.cpp", '#include "ops/conv2d.h"'),
        ("cpp/kernels/bad.cpp", "#include <arm_neon.h>"),
        ("cpp/kernels/neon/bad.cpp", "#include <immintrin.h>"),
        ("cpp/kernels/x86/bad.cpp", '#include "kernels/neon/vectors.h"'),
        ("cpp/kernels/bad.cpp", '#include "kernels/neon/helpers.h"'),
        ("cpp/ops/bad.cpp", '  #  include "network/session.h"'),
        ("cpp/network/bad.cpp", '#include "bindings/register.h"'),
        ("cpp/tools/bad.cpp", '#include "bindings/register.h"'),
    ],
)
def test_check_includes_can_fail(path: str, text: str) -> None:
    assert check_includes(path, text)


def test_includes_go_downwards() -> None:
    problems = []
    for path in find_sources("cpp"):
        problems += check_includes(path, (ROOT / path).read_text())
    assert not problems


# Names of the standard library, as patterns, by the header that declares them. A compiler's own
# headers may include one another, and those of its next version may not.
DECLARES = {
    "algorithm": "(all|any|none)_of|clamp|copy(_n|_if)?|count(_if)?|equal|fill(_n)?"
    "|find(_if(_not)?)?|(lower|upper)_bound|max(_element)?|min(_element)?|minmax|nth_element"
    "|remove_if|replace|reverse|rotate|sort|stable_sort|transform|unique",
    "array": "array",
    "atomic": r"atomic\w*",
    "bit": "bit_cast|popcount|count[rl]_zero|bit_ceil",
    "bitset": "bitset",
    "charconv": "from_chars|to_chars",
    "chrono": "chrono",
    "cmath": "ceil|exp2?|floor|fma|is(finite|inf|nan)|ldexp|log2?|lround|nearbyint|pow|round|sqrt"
    "|tanh",
    "cstddef": "byte|ptrdiff_t|size_t",
    "cstdint": r"u?int\d+_t|uintptr_t",
    "cstdlib": "abort|exit|getenv|strto[dl]",
    "cstring": "mem(cmp|cpy|move|set)|str(cmp|error|len)",
    "exception": "current_exception|exception(_ptr)?|rethrow_exception",
    "filesystem": "filesystem",
    "fstream": "[io]?fstream",
    "functional": "function|hash|less|plus",
    "iterator": "back_inserter|distance|istreambuf_iterator|next|prev",
    "limits": "numeric_limits",
    "map": "map",
    "memory": "make_(shared|unique)|(shared|unique)_ptr",
    "mutex": "lock_guard|mutex|scoped_lock|unique_lock",
    "numeric": "accumulate|gcd|iota|lcm|reduce",
    "optional": "nullopt|optional",
    "random": r"\w+_distribution|mt19937(_64)?",
    "set": "set",
    "span": "as_(writable_)?bytes|span",
    "sstream": "[io]?stringstream",
    "stdexcept": "invalid_argument|logic_error|out_of_range|runtime_error",
    "string": "sto[dil]|string|to_string",
    "string_view": "string_view",
    "system_error": "error_code|system_error",
    "thread": "jthread|this_thread|thread",
    "tuple": "make_tuple|tie|tuple",
    "type_traits": r"is_\w+_v|conditional_t|remove_cvref_t",
    "utility": "exchange|forward|make_pair|move|pair|swap",
    "variant": "get_if|holds_alternative|variant|visit",
    "vector": "vector",
}


@cache
def find_includes(path: Path) -> frozenset[str]:
    """What a source includes itself and by headers of this project."""
    found: frozenset[str] = frozenset()
    for name in re.findall(r'^\s*#\s*include\s+[<"](.+)[>"]', path.read_text(), re.MULTILINE):
        own = [folder / name for folder in (ROOT / "cpp", ROOT / "include", path.parent)]
        header = next(filter(Path.is_file, own), None)
        found |= find_includes(header) if header else {name}
    return found


def check_declarations(path: str, text: str, included: frozenset[str]) -> list[str]:
    """What a source names of the standard library comes from headers that promise it."""
    code = re.sub(r'//.*|"(\\.|[^"\\])*"', "", text)
    problems = []
    for header, names in DECLARES.items():
        if header not in included and (use := re.search(rf"\bstd::({names})\b", code)):
            problems.append(f"{path}: {use[0]} needs <{header}>")
    return problems


def test_check_declarations_can_fail() -> None:
    text = 'std::find(a, b, c); "std::array"; // std::map'
    assert check_declarations("a.h", text, frozenset({"vector"})) == [
        "a.h: std::find needs <algorithm>"
    ]
    assert not check_declarations("a.h", text, frozenset({"algorithm"}))


def test_headers_of_the_standard_library_are_included() -> None:
    problems = []
    for folder in ("cpp", "include", "examples", "tests"):
        for path in find_sources(folder):
            if not path.endswith(".inc"):
                source = ROOT / path
                problems += check_declarations(path, source.read_text(), find_includes(source))
    assert not problems


# -------------------------------------------------------------------------------- Python imports

# Installed by extras, so imported where they are used. Models and their training are PyTorch.
OPTIONAL = {"matplotlib", "onnx", "PIL", "safetensors", "skimage", "sklearn", "torch", "tqdm"}
TORCH_MODULES = {f"models/{name}.py" for name in ("espcn", "hrnet", "resnet", "train_espcn", "zoo")}
CORE_USERS = {"int8_plan.py", "session.py"}  # the only ones to import the extension
# What the data model imports of the package: nothing that works on graphs.
DATA_MODEL = {
    "ir.py": set(),
    "qparams.py": {"qppengine.ir"},
    "operations": {"qppengine.errors", "qppengine.ir", "qppengine.operations", "qppengine.qparams"},
    "int8_plan.py": {"qppengine._core", "qppengine.ir"},
    "graph.py": {
        "qppengine.errors",
        "qppengine.int8_plan",
        "qppengine.ir",
        "qppengine.operations",
    },
    "builder.py": {
        "qppengine.errors",
        "qppengine.graph",
        "qppengine.ir",
        "qppengine.limits",
        "qppengine.operations",
    },
}


def find_imports(text: str) -> list[tuple[str, bool]]:
    """The imports of a module at run time, and whether they are at its top level."""
    imports: list[tuple[str, bool]] = []

    def visit(node: ast.AST, *, top: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            imports.extend((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "qppengine" if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            imports.extend((f"{module}.{alias.name}", top) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, top=top and not inside)

    visit(ast.parse(text), top=True)
    return imports


def check_imports(path: str, text: str) -> list[str]:
    """`path` is relative to the package qppengine."""
    problems = []
    for name, top in find_imports(text):
        parts = name.split(".")
        if parts[:2] == ["qppengine", "_core"] and path not in CORE_USERS:
            problems.append(
                f"{path}: only {', '.join(sorted(CORE_USERS))} may import the extension"
            )
        allowed = DATA_MODEL.get(path.partition("/")[0])
        if allowed is not None and parts[0] == "qppengine" and ".".join(parts[:2]) not in allowed:
            problems.append(
                f"{path}: the data model must not import other modules, but imports {name}"
            )
        if top and parts[0] in OPTIONAL and not (parts[0] == "torch" and path in TORCH_MODULES):
            problems.append(f"{path}: {name} is optional; import it where it is used")
    return problems


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("graph.py", "from qppengine.passes import optimize"),
        ("graph.py", "from . import passes"),
        ("ir.py", "from qppengine.errors import ShapeError"),
        ("operations/pooling.py", "from qppengine.graph import Graph"),
        ("model_file.py", "from qppengine import _core"),
        ("cli.py", "import qppengine._core"),
        ("cli.py", "def main():\n    from qppengine._core import Session"),
        ("importers/aten.py", "import torch"),
        ("models/espcn.py", "import matplotlib.pyplot as plt"),
        (
            "regression.py",
            "try:\n    from sklearn import linear_model\nfinally: pass",
        ),
    ],
)
def test_check_imports_can_fail(path: str, text: str) -> None:
    assert check_imports(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("regression.py", "def fit():\n    from sklearn import linear_model"),
        ("importers/aten.py", "if TYPE_CHECKING:\n    import torch"),
        ("models/espcn.py", "import torch"),
        ("session.py", "from qppengine import _core"),
    ],
)
def test_check_imports_lets_pass(path: str, text: str) -> None:
    assert not check_imports(path, text)


def test_python_imports() -> None:
    package = ROOT / "python" / "qppengine"
    problems = []
    for path in package.rglob("*.py"):
        problems += check_imports(path.relative_to(package).as_posix(), path.read_text())
    assert not problems


def find_package_imports(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules of a package that each imports, also for types only; texts by dotted name."""
    imports: dict[str, set[str]] = {}
    for module, text in modules.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                # A name is a module of its own, or one that this module defines.
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names.update(name if name in modules else node.module for name in inner)
        imports[module] = names.intersection(modules) - {module}
    return imports


def find_circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules each of which imports the next one, and the last the first; empty if none do."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        found = (visit(name, [*path, module]) for name in sorted(imports[module]))
        circle = next(filter(None, found), [])
        done.add(module)
        return circle

    return next(filter(None, (visit(module, []) for module in sorted(imports))), [])


@pytest.mark.parametrize(
    "modules",
    [
        {"p.a": "from p.b import f", "p.b": "import p.a"},
        {"p.a": "from p import b", "p.b": "def f():\n    from p.c import x", "p.c": "import p.a"},
        {"p.a": "if TYPE_CHECKING:\n    from p.b import T", "p.b": "from p.a import f"},
    ],
)
def test_find_circle_can_fail(modules: Mapping[str, str]) -> None:
    assert set(find_circle(find_package_imports(modules))) == set(modules)


def test_modules_do_not_import_each_other_in_circles() -> None:
    package = ROOT / "python" / "qppengine"
    modules = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path.read_text()
        for path in package.rglob("*.py")
    }
    imports = find_package_imports({**modules, "qppengine._core": ""})
    assert imports["qppengine.operations"]
    assert not find_circle(imports)


# ---------------------------------------------------------------------------------- kernel names

# <op>[s<stride>]_<dst>_<src>[_<weights>][_<tile>]_<engine>[_<feature>]
KERNEL_NAME = re.compile(
    r"(?P<op>[a-z]+(\dx\d(s\d)?)?|winograd\d_[a-z]+)"
    r"_(?P<dst>f16|f32|qai8|qai16)_(?P<src>f16|f32|qai8|qai16)(_(?P<weights>f16|f32|qsi8cx))?"
    r"(_(?P<tile>\d+x\d+))?"
    r"_(?P<isa>ref|neon|neon_fp16|neon_dotprod|x86_avx2)"
)
NEEDS = {
    "ref": "QPP_ANY_CPU",
    "neon": "QPP_NEON",
    "neon_fp16": "QPP_FP16",
    "neon_dotprod": "QPP_DOTPROD",
    "x86_avx2": "QPP_AVX2",
}


def check_variants(text: str) -> list[str]:
    """Kernels are named by the grammar, and their rows match their names."""
    problems = []
    for row in re.findall(r"^QPP_KERNEL\((.+)\)$", text, re.MULTILINE):
        family, name, needs, *fields = (field.strip() for field in row.split(","))
        match = KERNEL_NAME.fullmatch(name)
        if not match:
            problems.append(f"{name} is not <op>_<dst>_<src>[_<weights>][_<tile>]_<engine>")
            continue
        if needs != NEEDS[match["isa"]]:
            problems.append(f"{name} needs {NEEDS[match['isa']]}, its row says {needs}")
        if family != match["op"]:
            problems.append(f"{name} is in a row of family {family}")
        dtypes = [match["dst"], match["src"], match["weights"]]
        named = [dtype.removesuffix("cx") for dtype in dtypes if dtype]
        if family.startswith("conv"):
            named += (match["tile"] or "x").split("x")
            fields = fields[:-1]
        if fields != named:
            problems.append(f"{name}: its row says {fields}")
    return problems


@pytest.mark.parametrize(
    "row",
    [
        "quantize, quantize_qai8_f16, QPP_ANY_CPU, qai8, f16",
        "quantize, quantize_i9_f16_ref, QPP_ANY_CPU, i9, f16",
        "quantize, quantize_qai8_f16_neon_fp16, QPP_NEON, qai8, f16",
        "mean, minmax_f32_f16_ref, QPP_ANY_CPU, f32, f16",
        "winograd4_input, winograd4_output_f16_f32_ref, QPP_ANY_CPU, f16, f32",
        "winograd4_input, winograd4_input_f32_f16_ref, QPP_ANY_CPU, f32, qai8",
        "add, add_f16_f16_ref, QPP_ANY_CPU, f16, qai8",
        "conv, conv_f16_f16_f32_4x16_ref, QPP_ANY_CPU, f16, f16, f32, 4, 8, 1",
        "conv, conv_f16_f16_f32_4x16_ref, QPP_ANY_CPU, qai8, f16, f32, 4, 16, 1",
    ],
)
def test_check_variants_can_fail(row: str) -> None:
    assert check_variants(f"QPP_KERNEL({row})")


def test_kernel_names() -> None:
    text = (ROOT / "cpp" / "kernels" / "variants.inc").read_text()
    assert "_ref, " in text
    assert not check_variants(text)


def check_boxes(path: str, text: str, names: set[str]) -> list[str]:
    """A file that defines kernels has boxes with their preconditions and bounds."""
    defined = set(re.findall(r"^void (\w+)\(", text, re.MULTILINE)) & names
    lacking = [
        entry
        for entry in ("preconditions", "loop budget")
        if not re.search(rf"^// {entry}  ", text, re.MULTILINE)
    ]
    return [f"{path}: no box has the {entry}" for entry in lacking if defined]


def test_check_boxes_can_fail() -> None:
    kernel = "void f(const Args& args) {}\n"
    assert check_boxes("bad.cpp", kernel, {"f"})
    assert check_boxes("bad.cpp", "// preconditions  none\n" + kernel, {"f"})


def test_kernels_have_boxes() -> None:
    text = (ROOT / "cpp" / "kernels" / "variants.inc").read_text()
    names = set(re.findall(r"^QPP_KERNEL\(\w+, (\w+),", text, re.MULTILINE))
    problems = []
    for path in find_sources("cpp/kernels/neon") + find_sources("cpp/kernels/x86"):
        problems += check_boxes(path, (ROOT / path).read_text(), names)
    assert not problems


# ------------------------------------------------------------------------- sources and CMake lists


def find_sources(folder: str) -> list[str]:
    """C++ files under a folder, relative to the repository."""
    paths = (ROOT / folder).rglob("*")
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.suffix in {".cpp", ".h", ".inc", ".S"}
    )


def check_lists(cmake: str, sources: list[str]) -> list[str]:
    """CMakeLists.txt names each source file once, in the list of its folder or instruction set."""
    problems = []
    listed = re.findall(r"^\s.*?((?:cpp|tests)/\S+\.(?:cpp|S))\b", cmake, re.MULTILINE)
    problems += [f"{path} is not listed" for path in sources if path not in listed]
    problems += [f"{path} is listed, but not there" for path in listed if path not in sources]
    problems += [f"{path} is listed twice" for path in set(listed) if listed.count(path) > 1]
    for isa in ("neon_fp16", "neon_dotprod", "x86_avx2"):
        block = re.search(rf"set\(QPP_{isa.upper()}_SOURCES(.*?)\n\)", cmake, re.DOTALL)
        in_list = set(re.findall(r"cpp/\S+\.(?:cpp|S)\b", block[1])) if block else set()
        by_name = {path for path in sources if path.endswith((f"_{isa}.cpp", f"_{isa}.S"))}
        problems += [f"{path}: list and name differ" for path in in_list ^ by_name]
    return problems


@pytest.mark.parametrize(
    ("cmake", "sources"),
    [
        ("", ["cpp/base/cpu.cpp"]),
        ("set(A\n  cpp/base/cpu.cpp\n)", []),
        ("set(A\n  cpp/base/cpu.cpp\n  cpp/base/cpu.cpp\n)", ["cpp/base/cpu.cpp"]),
        ("set(A\n  cpp/kernels/neon/a_neon_fp16.cpp\n)", ["cpp/kernels/neon/a_neon_fp16.cpp"]),
        (
            "set(QPP_NEON_DOTPROD_SOURCES  # flags\n  cpp/kernels/neon/a_neon.cpp\n)",
            ["cpp/kernels/neon/a_neon.cpp"],
        ),
    ],
)
def test_check_lists_can_fail(cmake: str, sources: list[str]) -> None:
    assert check_lists(cmake, sources)


def test_cmake_lists_all_sources() -> None:
    paths = find_sources("cpp") + find_sources("tests")
    sources = [path for path in paths if path.endswith((".cpp", ".S"))]
    assert not check_lists((ROOT / "CMakeLists.txt").read_text(), sources)


# --------------------------------------------------------------------------- licences and versions


def check_license(path: str, text: str) -> list[str]:
    """The SPDX line heads the file; only a script's interpreter may come before."""
    lines = text.splitlines()
    first = lines[1:2] if text.startswith("#!") else lines[:1]
    if first and re.fullmatch(r"(//|#|/\*) SPDX-License-Identifier: Apache-2\.0", first[0]):
        return []
    return [f"{path} lacks the SPDX line"]


@pytest.mark.parametrize(
    "text", ["", "int x;\n", "int x;\n// SPDX-License-Identifier: Apache-2.0", "#!/bin/sh\n\n"]
)
def test_check_license_can_fail(text: str) -> None:
    assert check_license("bad.cpp", text)


def test_every_source_names_its_license() -> None:
    kinds = {".c", ".cpp", ".h", ".hpp", ".inc", ".S", ".py", ".pyi", ".sh", ".cmake"}
    problems = []
    for folder in ("cmake", "cpp", "examples", "include", "python", "tests", "toolchains"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in kinds:
                problems += check_license(path.relative_to(ROOT).as_posix(), path.read_text())
    assert not problems


def check_versions(versions: dict[str, str]) -> list[str]:
    """All places that state the version agree."""
    return [] if len(set(versions.values())) == 1 else [f"versions differ: {versions}"]


def test_versions_agree() -> None:
    assert check_versions({"pyproject.toml": "0.1.0", "extension": "0.2.0"})

    import qppengine
    from qppengine import _core

    pyproject = (ROOT / "pyproject.toml").read_text()
    match = re.search(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    assert match
    versions = {
        "pyproject.toml": match[1],
        "installed package": importlib.metadata.version("qppengine"),
        "extension": _core.__version__,
        "package": qppengine.__version__,
    }
    assert not check_versions(versions)
