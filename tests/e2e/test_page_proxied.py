"""The page as people see it through a proxy, below a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.browsing import SAID, Visit
from tests.e2e.conftest import Server, StartServer
from tests.e2e.proxying import KINDS, Proxy, proxied

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Below(Server):
    """A server as its browser sees it: through a proxy, below a path."""

    proxy: Proxy

    @property
    def root(self) -> str:
        """The address of the page without the last slash."""
        return self.proxy.root


@pytest.fixture(scope="module")
def below(start_server: StartServer) -> Server:
    """A server with keys and the bundled model that is shown below a path."""
    return start_server(
        engine="auto",
        model_path="bundled",
        vad=True,
        root_path="/speech",
        trusted_proxies=["127.0.0.1"],
        api_keys=["sk-right"],
        allowed_hosts=["127.0.0.1"],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_works_below_a_path(
    kind: str, below: Server, visit: Visit, tmp_path: Path
) -> None:
    with proxied(kind, tmp_path, below.port, below=True) as proxy:
        about = {name: getattr(below, name) for name in ("port", "process", "data_dir", "key")}
        page = visit(Below(**about, proxy=proxy))
        page.context.add_init_script("""localStorage.setItem("whisper-api.key", '"sk-right"')""")
        page.open("/")
        page.tab.click("#sample")
        page.wait_for_transcript()
        assert page.text == SAID
        page.until("document.querySelector('audio').readyState > 0")  # opened by the cookie
        page.tab.goto(f"{proxy.root}/docs")
        page.tab.wait_for_selector("#docs .opblock")
        assert page.tab.locator("#docs .servers select").input_value() == "/speech"
        assert page.tab.goto(proxy.root).url == f"{proxy.root}/"
        page.context.close()  # before its proxy goes
