"""The integrations are there for who wants them, and nobody else notices."""

from __future__ import annotations

import pytest

from helpers.processes import run_python

EXTRAS = {
    "opentelemetry": ("opentelemetry", "otel"),
    "postgresql": ("psycopg", "postgresql"),
    "prometheus": ("prometheus_client", "prometheus"),
    "pydantic": ("pydantic", "pydantic"),
}


@pytest.mark.program
def test_importing_the_library_imports_no_integration():
    """Neither the package, nor the hooks, nor the command bring any library along that an extra installs."""
    done = run_python(
        """
        import trio_multispool, trio_multispool.instrumentation, trio_multispool.integrations, trio_multispool.cli.app
        print([name for name in sys.argv[1:] if name in sys.modules])
        """,
        *(library for library, _ in EXTRAS.values()),
        anew=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.program
@pytest.mark.parametrize("integration", EXTRAS)
def test_an_integration_does_not_import_the_others(integration):
    """Who uses one needs that one's extra alone."""
    others = [library for name, (library, _) in EXTRAS.items() if name != integration]
    done = run_python(
        """
        sys.modules.update(dict.fromkeys(sys.argv[2:]))
        __import__("trio_multispool.integrations." + sys.argv[1])
        print("imported")
        """,
        integration,
        *others,
        anew=True,
    )
    assert done.stdout.strip() == "imported"


@pytest.mark.program
@pytest.mark.parametrize("integration", EXTRAS)
def test_without_its_library_an_integration_names_the_extra(integration):
    """The error says what to install, and is an `ImportError` of the library that is missing."""
    library, extra = EXTRAS[integration]
    done = run_python(
        """
        sys.modules[sys.argv[2]] = None
        try:
            __import__("trio_multispool.integrations." + sys.argv[1])
        except ImportError as error:
            print(error.name, error)
        """,
        integration,
        library,
        anew=True,
    )
    assert done.stdout.startswith(f"{library} ")
    assert f"pip install 'trio-multispool[{extra}]'" in done.stdout
