"""Basic requests: a question and its answer, and the endpoints beside it."""

from __future__ import annotations

from ccproxy.stub import Finish, Text

from .proxy_case import BOTH, NAME, ProxyCase, text_of

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class BasicRequests(ProxyCase):
    """What the first program anybody writes against the API does."""

    def test_a_question(self) -> None:
        """An answer in text, under the name that was asked for, with its end and its counts."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Text("Paris"), Finish(prompt_tokens=21, completion_tokens=3))
                message = self.ask("What is the capital of France? Answer in one word.", stream=stream)
                self.assertIn("paris", text_of(message).lower())
                self.assertEqual((message.role, message.model, message.stop_reason), ("assistant", NAME, "end_turn"))
                self.assertTrue(message.id.startswith("msg_"))
                self.assertGreater(message.usage.input_tokens, 0)
                self.assertGreater(message.usage.output_tokens, 0)
                if not self.live:
                    self.assertEqual((message.usage.input_tokens, message.usage.output_tokens), (21, 3))

    def test_a_system_prompt(self) -> None:
        """The system prompt, a text or blocks, reaches the model ahead of the conversation."""
        for system in ("Answer every question with the word PONG.", [{"type": "text", "text": "Always say PONG."}]):
            with self.subTest(system=system):
                self.says(Text("PONG"))
                self.assertIn("PONG", text_of(self.ask("ping", system=system)).upper())
        for sent in self.sent:
            self.assertEqual([message["role"] for message in sent["messages"]], ["system", "user"])
            self.assertIn("PONG", str(sent["messages"][0]["content"]))

    def test_a_limit_on_the_answer(self) -> None:
        """An answer that meets max_tokens says so; the model was told the limit."""
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Text("one, two,"), Finish("length", completion_tokens=16))
                message = self.ask("Count from one to five hundred in words.", stream=stream, max_tokens=16)
                self.assertEqual(message.stop_reason, "max_tokens")
        for sent in self.sent:
            self.assertEqual(sent["max_tokens"], 16)

    def test_a_stop_sequence(self) -> None:
        """The answer ends before the sequence."""
        self.says(Text("1 2 3 "), Finish("stop"))
        message = self.ask("Write the digits from 1 to 9, separated by spaces.", stop_sequences=["4"])
        self.assertNotIn("4", text_of(message))
        for sent in self.sent:
            self.assertEqual(sent["stop"], ["4"])

    def test_sampling(self) -> None:
        """Temperature and top_p are the client's."""
        body = {"model": NAME, "max_tokens": 64, "messages": [{"role": "user", "content": "Say ok."}]}
        for field, value in (("temperature", 0.25), ("top_p", 0.5)):
            with self.subTest(field=field):
                self.says(Text("ok"))
                self.assertEqual(self.post({**body, field: value}).status, 200)
                if not self.live:
                    self.assertEqual(self.sent[-1][field], value)

    def test_every_script_and_sign(self) -> None:
        """No character of the prompt or of the answer is lost."""
        words = 'Žluťoučký kůň 🐎 漢字 العربية \u200d\u2028 \\ " <tag> \t end'
        for stream in BOTH:
            with self.subTest(stream=stream):
                self.says(Text(words))
                message = self.ask(f"Repeat exactly: {words}", stream=stream)
                self.assertTrue(text_of(message))
                if not self.live:
                    self.assertEqual(text_of(message), words)
                    self.assertEqual(self.sent[-1]["messages"][0]["content"], f"Repeat exactly: {words}")

    def test_an_image(self) -> None:
        """An image reaches a model that can see."""
        self.only_scripted("not every model can see")
        self.says(Text("A pixel."))
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
        self.assertEqual(text_of(self.ask([{"role": "user", "content": content}])), "A pixel.")
        image, text = self.sent[0]["messages"][0]["content"]
        self.assertEqual(image["image_url"]["url"], f"data:image/png;base64,{PIXEL}")
        self.assertEqual(text["text"], "What is this?")


class OtherEndpoints(ProxyCase):
    """What clients ask beside messages."""

    def test_counting_tokens(self) -> None:
        """A longer prompt counts more, and no model is asked."""
        counts = [
            self.client.messages.count_tokens(model=NAME, messages=[{"role": "user", "content": "word " * times}])
            for times in (1, 1000)
        ]
        self.assertGreater(counts[1].input_tokens, counts[0].input_tokens + 900)
        self.assertEqual(self.sent, [])

    def test_the_estimate_is_one(self) -> None:
        """A stream begins with the number that counting gave."""
        counted = self.client.messages.count_tokens(model=NAME, messages=[{"role": "user", "content": "Hello"}])
        self.says(Text("Hi"))
        arguments = {"model": NAME, "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
        with self.client.messages.stream(**arguments) as events:
            start = next(event for event in events if event.type == "message_start")
            self.assertEqual(start.message.usage.input_tokens, counted.input_tokens)

    def test_the_models(self) -> None:
        """The models can be listed, and each looked up."""
        self.only_scripted("the list is that of models.yaml")
        listed = list(self.client.models.list())
        self.assertIn("scripted", [model.id for model in listed])
        self.assertEqual(self.client.models.retrieve("scripted").id, "scripted")

    def test_health(self) -> None:
        """Alive, without asking a model; every answer has an id."""
        answer = self.post(None, "/health")
        self.assertEqual((answer.status, answer.json["status"]), (200, "ok"))
        self.assertTrue(answer.headers["request-id"].startswith("req_"))
