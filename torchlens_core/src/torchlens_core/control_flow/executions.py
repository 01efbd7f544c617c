"""One execution of a conditional: what it asked, what its tests came to, which arm ran."""

from __future__ import annotations

from .branches import Question, Statement
from .truth import Answer, asking, outcomes


class Run:
    """One execution of a conditional, put together from the events in the order in which they happened."""

    def __init__(self, statement: Statement, scope: int, question: Question, event: int, value: bool) -> None:
        self.statement = statement
        self.scope = scope
        self.first_event = event
        self.events: list[int] = []  # indices
        self.tests: list[int] = []  # for each event the test that asked
        self.ops: list[int] = []  # that ran in its arm
        self._asked: set[Question] = set()
        self._answers: list[Answer] = []
        self._possible = frozenset(range(len(statement.tests) + 1))  # which test was the first true one, see `outcomes`
        self._value = value
        self.take(question, event, value)

    def take(self, question: Question, event: int, value: bool) -> bool:
        """Add an event; False if this execution cannot have asked it, so that it begins the next one."""
        if self.events and not self._may_take(question):
            return False
        if question.operand is None:
            self._possible = frozenset(number for number in self._possible if number >= question.test)
        else:
            matters = question.own and asking(question.operand).stops_at is not None
            answer = Answer(question.test, question.operand, question.own, value and matters)
            answers = [*self._answers, answer]
            possible = outcomes(self.statement.tests, answers)
            if not possible:
                return False
            self._possible = possible
            if not question.repeats or self._answers[-1:] != [answer]:  # the same over and over tells nothing more
                self._answers = answers
        self._asked.add(question)
        self.events.append(event)
        self.tests.append(question.test)
        return True

    def _may_take(self, question: Question) -> bool:
        if question.operand is None or not self._answers:  # it is not known what was asked
            return False
        return question.own or question.repeats or question not in self._asked

    def is_in(self, arm: int) -> bool:
        """Whether what ran in an arm, after this execution began and before the next one did, ran in this one.

        It shows which arm ran, unless the arm can be reached without asking any array: then it may have run later.
        """
        if arm not in self._possible:
            return False
        if len(self._possible) > 1:
            if not any(question.always and question.test <= arm for question in self._asked):
                return False
            self._possible = frozenset({arm})
        return True

    @property
    def value(self) -> bool | None:
        """Whether one of the tests was true; None where that does not follow from what is known."""
        if not self.statement.tests:
            return self._value
        numbers = {number < len(self.statement.tests) for number in self._possible}
        return numbers.pop() if len(numbers) == 1 else None

    @property
    def arm(self) -> str | None:
        """The arm that ran; None where none did, or it is unknown."""
        if len(self._possible) > 1 or not self.statement.arms:
            return None
        (number,) = self._possible
        return self.statement.arms[number].name if number < len(self.statement.arms) else None
