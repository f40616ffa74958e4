"""Error handling: every failure has Anthropic's shape, the SDK's own class, and words that help."""

from __future__ import annotations

import socket
from typing import Any, ClassVar, Dict, Mapping

import anthropic

from ccproxy.config.schema import Config
from ccproxy.stub import Cut, Failure, Text
from support import make_config

from .proxy_case import BOTH, NAME, ProxyCase, text_of

Json = Dict[str, Any]
QUESTION = [{"role": "user", "content": "Hello"}]
BODY = {"model": NAME, "max_tokens": 64, "messages": QUESTION}

# What the provider answers: the status the client gets, Anthropic's type for it, and the SDK's class.
FAILURES: Mapping[int, Any] = {
    400: (400, "invalid_request_error", anthropic.BadRequestError),
    401: (401, "authentication_error", anthropic.AuthenticationError),
    403: (403, "permission_error", anthropic.PermissionDeniedError),
    404: (404, "not_found_error", anthropic.NotFoundError),
    413: (413, "request_too_large", anthropic.APIStatusError),
    429: (429, "rate_limit_error", anthropic.RateLimitError),
    500: (500, "api_error", anthropic.InternalServerError),
    503: (529, "overloaded_error", anthropic.APIStatusError),
    529: (529, "overloaded_error", anthropic.APIStatusError),
}


class ProviderFailures(ProxyCase):
    """What a provider answers when it cannot."""

    def setUp(self) -> None:
        """Only a script fails when told to."""
        super().setUp()
        self.only_scripted("a real provider does not fail when told to")

    def test_every_status(self) -> None:
        """The SDK raises the class that programs catch, with the provider's words and a request id."""
        for status, (answered, kind, error_class) in FAILURES.items():
            for stream in BOTH:
                with self.subTest(status=status, stream=stream):
                    self.says(Failure(status, "bad luck"))
                    with self.assertRaises(error_class) as caught:
                        self.ask("Hello", stream=stream)
                    error = caught.exception
                    self.assertEqual((error.status_code, error.body["type"]), (answered, "error"))
                    self.assertEqual(error.body["error"]["type"], kind)
                    self.assertIn("bad luck", error.body["error"]["message"])
                    self.assertTrue(error.request_id.startswith("req_"))

    def test_a_prompt_that_does_not_fit(self) -> None:
        """In the words by which Claude Code knows that it must compact."""
        words = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
        self.says(Failure(400, words))
        answer = self.post(BODY)
        self.assertEqual(answer.status, 400)
        self.assertRegex(answer.json["error"]["message"], r"^prompt is too long: \d+ tokens > \d+ maximum")

    def test_how_long_to_wait(self) -> None:
        """Retry-After reaches the client, who decides."""
        self.says(Failure(429, "slow down", {"retry-after": "17"}))
        answer = self.post(BODY)
        self.assertEqual((answer.status, answer.headers["retry-after"]), (429, "17"))

    def test_an_answer_that_breaks_off(self) -> None:
        """Never an answer that looks whole: an error where it can still be told, else a stream without an end."""
        self.says(Cut())
        self.assertEqual(self.post(BODY).status, 502)
        self.says(Text("half an"), Cut())
        with self.assertRaises(anthropic.APIError):
            self.ask("Hello", stream=True)

    def test_the_next_request_works(self) -> None:
        """A failure leaves nothing behind."""
        for status in (500, 429, 400):
            self.says(Failure(status, "bad luck"))
            self.post(BODY)
            self.says(Text("fine"))
            self.assertEqual(text_of(self.ask("Hello")), "fine")


class BadRequests(ProxyCase):
    """What the client does wrong: said before any model is asked."""

    def test_each_is_explained(self) -> None:
        """400, and the field that is wrong in words."""
        wrong: Dict[str, Any] = {
            "not valid JSON": b"{",
            "messages": {"model": NAME, "max_tokens": 64},
            "max_tokens": {"model": NAME, "messages": QUESTION, "max_tokens": "many"},
            "model": {"max_tokens": 64, "messages": QUESTION},
            "role": {**BODY, "messages": [{"role": "robot", "content": "x"}]},
            "content": {**BODY, "messages": [{"role": "user", "content": 5}]},
        }
        for words, body in wrong.items():
            with self.subTest(wrong=words):
                answer = self.post(body)
                self.assertEqual((answer.status, answer.json["type"]), (400, "error"))
                self.assertEqual(answer.json["error"]["type"], "invalid_request_error")
                self.assertIn(words, answer.json["error"]["message"])
        self.assertEqual(self.sent, [])

    def test_paths_and_methods(self) -> None:
        """What is not there is 404, what is there under another method 405, both in Anthropic's shape."""
        for path, body, status in (("/v1/nothing", BODY, 404), ("/v1/messages", None, 405), ("/health", BODY, 405)):
            with self.subTest(path=path):
                answer = self.post(body, path)
                self.assertEqual((answer.status, answer.json["type"]), (status, "error"))


class Access(ProxyCase):
    """A proxy with a token."""

    settings: ClassVar[Mapping[str, str]] = {"CCPROXY_AUTH_TOKEN": "the-token"}

    def test_the_token(self) -> None:
        """Without it nothing is answered; with it, in either header, everything is. It never reaches the provider."""
        self.only_scripted("the proxy of this test has a token of its own")
        for headers in ({}, {"x_api_key": "wrong"}, {"authorization": "Bearer wrong"}):
            answer = self.post(BODY, **headers)
            self.assertEqual((answer.status, answer.json["error"]["type"]), (401, "authentication_error"))
            self.assertNotIn("the-token", str(answer.json))
        for headers in ({"x_api_key": "the-token"}, {"authorization": "Bearer the-token"}):
            self.says(Text("Hello"))
            self.assertEqual(self.post(BODY, **headers).status, 200)
        self.assertNotIn("the-token", str([(received.headers, received.body) for received in self.provider.requests]))


class NobodyThere(ProxyCase):
    """A provider that does not run."""

    @classmethod
    def scripted_config(cls) -> Config:
        """Return a configuration whose model is at a port where nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        row = {"model_id": "gone", "api_base": f"http://127.0.0.1:{port}/v1", "api_key_name": "GONE_KEY"}
        return make_config({"ROUTER_DEFAULT": "gone", "GONE_KEY": "a-secret-key"}, [row])

    def test_it_is_said(self) -> None:
        """502 that names the provider, and no key."""
        self.only_scripted("the real provider is there")
        answer = self.post(BODY)
        self.assertEqual((answer.status, answer.json["error"]["type"]), (502, "api_error"))
        self.assertIn("could not be reached", answer.json["error"]["message"])
        self.assertNotIn("a-secret-key", str(answer.json))
