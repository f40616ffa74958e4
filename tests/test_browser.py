"""The dashboard as its readers have it: a real Chromium before a real proxy with traffic."""

from __future__ import annotations

import random
import re
import threading
import time
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator, List
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from browser import Browser, running_browser
from ccproxy.accounting.ledger import Ledger
from ccproxy.app import App
from ccproxy.provider.cooldown import LEAST_FAILURES
from ccproxy.server import Server
from ccproxy.stub import Failure, StubProvider, Text, demo_script
from ledger_rows import row
from processes import eventually
from support import Json, Proxy, ask, make_config, running_proxy, user

pytestmark = pytest.mark.slow

TOKEN = "secret-token-4711"
CANARY = "<img src=x onerror=\"document.title='hacked'\">'\"><script>document.title='hacked'</script>"
each_theme = pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
STOPPED = re.compile(r"/dashboard/events\?after=\d+ - Failed to load resource: (net::ERR_|.* status of 503)")
"""What the console says once the proxy of a test is gone."""
WIDTHS = [320, 390, 820, 1440]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this file."""
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, looking as most do; whatever a test does, the console stays silent."""
    chromium.look()
    yield chromium
    assert [line for line in chromium.console() if not STOPPED.search(line)] == []
    chromium.open("about:blank")


def past(folder: Path, *names: str) -> Ledger:
    """A ledger with a month of requests to models of these names."""
    ledger, draw = Ledger(folder), random.Random(1)
    for number in range(300):
        name = names[number % len(names)]
        is_good, cost = number % 17 > 0, Decimal(draw.randrange(1, 5000)) / 1_000_000
        fields = {"outcome": "ended", "cost": cost} if is_good else {"outcome": "failed", "status": 529}
        at = time.time() - 86400 * 30 * (1 - number / 300)
        ledger.add(row(time=at, model=name, request_id=f"req_{number}", reason="no other rule fired", **fields))
    assert ledger.flush(20)
    return ledger


def script(body: Json) -> Any:
    """What the demo plays; the model ``bad`` fails."""
    return [Failure(529, "overloaded")] if body["model"] == "bad" else demo_script(body)


@contextmanager
def busy_proxy(folder: Path, **settings: str) -> Iterator[Proxy]:
    """A proxy with a past, a model that answers, one that rests, one without its key, and a long name."""
    with StubProvider(script) as stub:
        models = [
            {
                "model_id": "good",
                "api_base": stub.url,
                "input_cost_per_token": "0.000001",
                "output_cost_per_token": "0",
            },
            {"model_id": "bad", "api_base": stub.url},
            {"model_id": "a-model-with-a-rather-long-name-" + "x" * 40, "api_base": stub.url, "api_key_name": "NO_KEY"},
        ]
        rules = {"ROUTER_DEFAULT": "bad,good", "ROUTER_THINK": "good", "DAILY_BUDGET_USD": "3", **settings}
        with running_proxy(
            rules, models, past(folder, "good", "bad", "other", "one more", "model/5", "model/6")
        ) as proxy:
            headers = {"x-api-key": settings.get("CCPROXY_AUTH_TOKEN", "")}
            for _ in range(LEAST_FAILURES):
                assert ask(proxy.url, "/v1/messages", user(), headers=headers).status == 200
            yield proxy


# --- what it tells ------------------------------------------------------------------------------------------------


def test_a_newcomer_sees_what_to_do(browser: Browser, tmp_path: Path) -> None:
    """All is well, nothing was asked yet, and these lines connect Claude Code."""
    with running_proxy(ledger=Ledger(tmp_path)) as proxy:
        browser.open(proxy.url)
        browser.until("#health", "Healthy")
        browser.until("#none", "No request yet", "Connect Claude Code")
        browser.until("#no-usage", "Nothing was used in this period")
        browser.until("#models", "demo/echo", "not asked lately")
        lines = f"export ANTHROPIC_BASE_URL={proxy.url}\nexport ANTHROPIC_AUTH_TOKEN=ccproxy\nclaude"
        assert browser.run("return document.getElementById('lines').textContent") == lines
        browser.click("[data-copies=lines]")
        browser.until("[data-copies=lines]", "Copied")


def test_requests_appear_as_they_happen(browser: Browser, tmp_path: Path) -> None:
    """First as being answered, then with tokens, times, route and reason; sums and models follow, without a reload."""
    release = threading.Event()

    def held(body: Json) -> Any:
        release.wait(20)
        return [Text("hi")]

    with StubProvider(held) as stub:
        models = [
            {"model_id": "slow", "api_base": stub.url, "input_cost_per_token": "0.01", "output_cost_per_token": "0"}
        ]
        with running_proxy({"ROUTER_THINK": "slow"}, models, Ledger(tmp_path)) as proxy:
            browser.open(proxy.url + "/dashboard")
            browser.until("#none", "No request yet")
            browser.run("window.wasHere = true")
            body = user(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000)
            client = threading.Thread(target=ask, args=(proxy.url, "/v1/messages", body))
            client.start()
            browser.until("#running", "slow", "think: thinking is enabled with a budget of 1024 tokens", "so far")
            browser.until("#waiting", "1 being answered")
            release.set()
            client.join(20)
            shown = browser.until("#ended", "slow", "think: thinking is enabled with a budget of 1024 tokens", "tokens")
            assert "asked for as claude-sonnet-4-5" in shown
            browser.until("#models", "slow", "answers")
            browser.until("#tiles", "Requests today 1", "none failed", "Cost today $0.")
            browser.until("#days .readout", "$0.", "in all")
            browser.until("#routes", "think", "slow", "1 · 100 %")
            assert browser.text("#running") == ""
            assert browser.run("return window.wasHere")


def test_a_name_is_not_told_twice(browser: Browser, tmp_path: Path) -> None:
    """What Claude Code calls a model, after the rule and the model themselves, says nothing new."""
    with running_proxy({"ROUTER_DEFAULT": "demo/echo"}, ledger=Ledger(tmp_path)) as proxy:
        browser.open(proxy.url + "/dashboard")
        for name in ("default:demo/echo", "demo/echo", "default:gone"):
            ask(proxy.url, "/v1/messages", user(model=name))
        shown = browser.until("#ended", "override: the client asked for demo/echo", "asked for as default:gone")
        assert shown.count("asked for as") == 1


def test_what_fails_is_told(browser: Browser, tmp_path: Path) -> None:
    """Which model rests, after whom another one answered, which key is missing; in words, not in colors alone."""
    with busy_proxy(tmp_path) as proxy:
        browser.open(proxy.url)
        browser.until("#health", "Works; 1 model failed and rests")
        browser.until("#ended", "bad gave no answer before.", "default: no other rule fired")
        browser.until("#models", "good", "answers", "failed too often, rests for", "no key: set NO_KEY")
        assert "failed and rests" in browser.run("return document.title")


def test_the_configurations_problems_are_told(browser: Browser, tmp_path: Path) -> None:
    """Above all else, as long as they last."""
    with running_proxy(ledger=Ledger(tmp_path)) as proxy:
        proxy.app.config = make_config(
            {}, [{"model_id": "m", "api_base": "http://127.0.0.1:1", "api_key_name": "M_KEY"}]
        )
        object.__setattr__(proxy.app.config, "warnings", ("m: no key: M_KEY is not set",))
        browser.open(proxy.url)
        browser.until("#notices", "To look after", "m: no key: M_KEY is not set")
        proxy.app.config, proxy.app.config_problem = make_config(), "models.yaml:3: api_base: missing"
        browser.until("#notices", "the last good one is in force", "models.yaml:3: api_base: missing")
        browser.until("#health", "Works with the last good configuration")
        proxy.app.config_problem = ""
        browser.until("#health", "Healthy")
        assert browser.text("#notices") == ""


def test_the_numbers_are_those_of_the_statistics(browser: Browser, tmp_path: Path) -> None:
    """Drawn by day and by model, and as tables for who cannot see a drawing; another period brings others."""
    with busy_proxy(tmp_path) as proxy:
        browser.open(proxy.url)
        browser.until("#days .readout", "in all")
        found = ask(proxy.url, "/v1/stats?period=30d").json
        browser.click("#numbers summary")
        tables = browser.until("#tables", "Model", "Day (", found["by_day"][0]["day"])
        for group in found["by_model"]:
            assert f"{group['model']} {group['requests']:,} {group['errors']:,} {group['input_tokens']:,}" in tables
        assert browser.run("return document.querySelectorAll('#days rect[class^=f]').length") >= 25
        assert len(browser.run("return [...document.querySelectorAll('#days .legend li')]")) == 6
        browser.click("label[for=m-requests]")
        browser.until("#days .readout", f"{found['totals']['requests']} in all")
        browser.click("label[for=p-7d]")
        week = ask(proxy.url, "/v1/stats?period=7d").json["totals"]["requests"]
        browser.until("#days .readout", f"{week} in all")


def test_connections_are_tested_on_demand(browser: Browser, tmp_path: Path) -> None:
    """Each provider with what it said."""
    with running_proxy({"ROUTER_DEFAULT": "demo/echo,ollama/x", "OLLAMA_API_BASE": "http://127.0.0.1:1/v1"}) as proxy:
        browser.open(proxy.url)
        browser.until("#models", "demo/echo")
        browser.click("#test")
        browser.until("#tested", "demo", "none needed", "reachable", "Connection refused")
        browser.console()  # without a ledger there are no statistics, which Chromium notes


def test_a_paused_list_stays_as_it_is(browser: Browser, tmp_path: Path) -> None:
    """And says how many are waiting."""
    with running_proxy(ledger=Ledger(tmp_path)) as proxy:
        browser.open(proxy.url)
        browser.until("#none", "No request yet")
        browser.click("#pause")
        browser.until("#live", "Paused")
        ask(proxy.url, "/v1/messages", user())
        browser.until("#waiting", "1 new")
        assert browser.text("#ended") == ""
        browser.click("#pause")
        browser.until("#ended", "demo/echo")


# --- when the proxy is gone ---------------------------------------------------------------------------------------


def test_a_proxy_that_is_gone_is_waited_for(chromium: Browser, tmp_path: Path) -> None:
    """The page says so, keeps what it knew, and goes on by itself when the proxy is back, without a request twice."""
    chromium.look()
    with running_proxy(ledger=Ledger(tmp_path)) as proxy:
        ask(proxy.url, "/v1/messages", user())
        chromium.open(proxy.url)
        chromium.until("#ended", "demo/echo")
        proxy.server.stop(5.0)
        chromium.until("#health", "No answer since")
        chromium.until("#live", "Trying again")
        assert "demo/echo" in chromium.text("#ended")
        again = Server(App(make_config(), Ledger(tmp_path)), "127.0.0.1", urlsplit(proxy.url).port or 0)
        threading.Thread(target=again.serve_forever, args=(0.02,), daemon=True).start()
        try:
            chromium.until("#health", "Healthy")
            ask(proxy.url, "/v1/messages", user(model="demo/again"))
            chromium.until("#ended", "demo/again")
            assert len(chromium.run("return [...document.querySelectorAll('#ended li')]")) == 2
        finally:
            again.stop(5.0)
            again.app.close()
    failed = ("ERR_", "status of 503")  # connections that failed; a proxy that stops says so
    assert [line for line in chromium.console() if not any(word in line for word in failed)] == []
    chromium.open("about:blank")


# --- safety -------------------------------------------------------------------------------------------------------


def test_names_from_outside_are_text(browser: Browser, tmp_path: Path) -> None:
    """Whatever a client or a provider calls its models, tools and sessions, nothing of it is markup."""
    ledger = past(tmp_path, CANARY, "good")
    with StubProvider(lambda body: [Failure(400, CANARY)] if body["model"] == CANARY else [Text("hi")]) as stub:
        models = [{"model_id": name, "api_base": stub.url} for name in (CANARY.replace(",", ""), "good")]
        with running_proxy({"ROUTER_DEFAULT": "good"}, models, ledger) as proxy:
            tool = {"name": "canary", "description": CANARY, "input_schema": {"type": "object"}}
            for model in (CANARY, f"claude-{CANARY}", f"demo/{CANARY}"):
                session = {"user_id": f"user_a_account_b_session_{CANARY}"}
                ask(proxy.url, "/v1/messages", user(CANARY, model=model, tools=[tool], metadata=session))
            ask(
                proxy.url,
                "/v1/messages",
                user(),
                headers={"x-ccproxy-model": "good", "x-claude-code-session-id": CANARY},
            )
            object.__setattr__(proxy.app.config, "warnings", (CANARY,))
            browser.open(proxy.url)
            browser.until("#ended", CANARY, "refused (400)")
            browser.until("#models", CANARY)
            browser.until("#notices", CANARY)
            browser.until("#by-model", CANARY)
            browser.until("#routes", "override")
            browser.click("#numbers summary")
            browser.until("#tables", CANARY)
            browser.click("#test")
            browser.until("#tested", "reachable")
            assert browser.run("return document.title") == "Works; 1 model failed when last asked · ccproxy"
            assert browser.run("return document.querySelectorAll('img, iframe, body script ~ script').length") == 0
            assert browser.run("return document.querySelectorAll('[onerror], [onclick], [style]').length") == 0


def test_a_script_that_got_in_would_not_run(chromium: Browser) -> None:
    """The content policy is the second wall: neither a script element, nor a handler, nor HTML from a string."""
    with running_proxy() as proxy:
        chromium.open(proxy.url)
        chromium.until("#health", "Healthy")
        chromium.run(
            "const script = document.createElement('script');"
            "try { script.textContent = 'document.title = \"hacked\"'; } catch {}"
            "document.body.append(script);"
            "const image = new Image();"
            "try { image.setAttribute('onerror', 'document.title = \"hacked\"'); } catch {}"
            "image.src = 'https://evil.invalid/x.png'; document.body.append(image);"
        )
        eventually(lambda: len(chromium.driver.get_log("browser")) > 0, "the policy refuses")  # type: ignore[no-untyped-call]
        assert chromium.run("return document.title") == "ccproxy"
        with pytest.raises(Exception, match="TrustedHTML"):
            chromium.run("document.body.innerHTML = '<b>x</b>'")
    chromium.open("about:blank")


def refused_only(browser: Browser) -> bool:
    """Whether the console told of nothing but answers with 401, of which Chromium notes each."""
    return all("status of 401" in line for line in browser.console())


def test_the_token_is_asked_for_and_kept_in_the_tab(chromium: Browser, tmp_path: Path) -> None:
    """A wrong one is refused in words; the right one is in no address, cookie or lasting place, and is forgotten."""
    chromium.look()
    with busy_proxy(tmp_path, CCPROXY_AUTH_TOKEN=TOKEN) as proxy:
        chromium.open(proxy.url)
        chromium.until("#token", "This proxy asks for its token")
        assert not chromium.text("#page")
        assert chromium.run("return document.activeElement.id") == "secret"
        assert chromium.violations() == []
        chromium.press("wrong" + Keys.ENTER)
        chromium.until("#refused", "This token was not accepted")
        chromium.press("schlüssel" + Keys.ENTER)
        chromium.until("#refused", "letters, digits and signs only")
        chromium.run("document.getElementById('secret').value = ''")
        chromium.press(TOKEN + Keys.ENTER)
        chromium.until("#health", "Works")
        chromium.until("#ended", "good")
        chromium.until("#lines", 'ANTHROPIC_AUTH_TOKEN="$CCPROXY_AUTH_TOKEN"')
        assert refused_only(chromium)
        kept = chromium.run(
            "return [location.href, document.cookie, Object.keys(localStorage).length, document.body.innerHTML]"
        )
        assert TOKEN not in repr(kept)
        chromium.driver.refresh()
        chromium.until("#health", "Works")
        chromium.click("#forget")
        chromium.until("#token", "This proxy asks for its token")
        assert refused_only(chromium)
    chromium.open("about:blank")


# --- for everybody ------------------------------------------------------------------------------------------------


@each_theme
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing(browser: Browser, tmp_path: Path, is_dark: bool, width: int) -> None:
    """Contrast, names, roles, order of headings and the rest, with traffic in it."""
    browser.look(is_dark=is_dark, width=width, is_still=True)
    with busy_proxy(tmp_path) as proxy:
        browser.open(proxy.url)
        browser.until("#days .readout", "in all")
        browser.until("#ended", "good")
        browser.click("#test")
        browser.until("#tested", "reachable")
        browser.click("#numbers summary")
        assert browser.violations() == []


OVERLAPS = """
const root = document.documentElement, problems = [];
if (root.scrollWidth > innerWidth) problems.push(`the page is ${root.scrollWidth} wide`);
const shown = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, parent = node.parentElement;
  const isLeftOut = parent.closest("script, style, noscript, .hidden, .skip, .scroll, [hidden]");
  if (!node.textContent.trim() || isLeftOut) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    if (box.width < 1 || box.height < 1) continue;
    if (box.left < -0.5 || box.right > innerWidth + 0.5) problems.push(`out of the window: ${node.textContent.trim()}`);
    shown.push({ box, parent, text: node.textContent.trim() });
  }
}
for (const [index, one] of shown.entries()) {
  for (const other of shown.slice(index + 1)) {
    const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
    const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
    if (across > 1 && down > 3) problems.push(`${one.text} is over ${other.text}`);
  }
}
return [shown.length, problems];
"""


@each_theme
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overlaps_or_runs_out_of_the_window(
    browser: Browser, tmp_path: Path, is_dark: bool, width: int
) -> None:
    """From a small phone to a wide screen, with names of every length."""
    browser.look(is_dark=is_dark, width=width, is_still=True)
    with busy_proxy(tmp_path) as proxy:
        browser.open(proxy.url)
        browser.until("#days .readout", "in all")
        browser.until("#ended", "good")
        for measure in ("cost", "tokens", "requests"):
            browser.click(f"label[for=m-{measure}]")
            texts, problems = browser.run(OVERLAPS)
            assert texts > 80
            assert problems == []


def test_all_is_reached_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    """In the order of the page, each thing seen and marked; arrows choose periods and days, space pauses."""
    browser.look(is_still=True)
    with busy_proxy(tmp_path) as proxy:
        browser.open(proxy.url)
        browser.until("#days .readout", "in all")
        met: List[Any] = [browser.tab()]
        while met[-1]["name"]:
            if met[-1]["name"] == "pause":
                browser.press(Keys.SPACE)
                browser.until("#live", "Paused")
            elif met[-1]["name"] == "p-30d":
                browser.press(Keys.ARROW_RIGHT)
                browser.until("#days .readout", "in all")
            elif met[-1]["name"] == "chart":
                browser.press(Keys.ARROW_LEFT)
                assert "in all" not in browser.until("#days .readout", ": $")
            met.append(browser.tab())
    del met[-1]
    names = [item["name"] for item in met]
    order = [
        "pause",
        "more",
        "test",
        "m-cost",
        "p-30d",
        "chart",
        "The numbers as tables",
        "lines",
        "Copy",
        "code",
        "Copy",
    ]
    assert names == ["Skip to the requests", *order]
    assert [item["name"] for item in met if not (item["isMarked"] and item["isSeen"])] == []


def test_who_wants_no_motion_gets_none(browser: Browser, tmp_path: Path) -> None:
    """Neither turning nor fading."""
    browser.look(is_still=True)
    with busy_proxy(tmp_path) as proxy:
        browser.open(proxy.url)
        browser.until("#ended", "good")
        ask(proxy.url, "/v1/messages", user(model="good"))
        browser.until("#ended", "override")
        assert browser.run("return document.getAnimations().length") == 0


def test_a_screen_reader_is_told_little(browser: Browser, tmp_path: Path) -> None:
    """One polite sentence for many requests, not a list that is read out anew each time."""
    with running_proxy(ledger=Ledger(tmp_path)) as proxy:
        browser.open(proxy.url)
        browser.until("#none", "No request yet")
        browser.run(
            "window.said = []; new MutationObserver(() => said.push(document.getElementById('said').textContent))"
            ".observe(document.getElementById('said'), { childList: true, characterData: true, subtree: true });"
        )
        for number in range(8):
            ask(proxy.url, "/v1/messages", user(model=f"demo/{number}"))
            browser.until("#ended", f"demo/{number}")
        assert len(browser.run("return said")) == 1
        assert browser.run("return document.querySelectorAll('#ended[aria-live], #requests [aria-live]').length") == 0
