"""The integer expressions of launch plans (docs/op-format.md): dims and shapes by name."""
import re

_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|(&&|\|\||[<>=!]=|[-+*/%()<>!?:,]))")


def _exact(a, b):
    quotient, rest = divmod(a, b)
    if rest:
        raise ValueError(f"{a} is no multiple of {b}")
    return quotient


_FUNCTIONS = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor_div": lambda a, b: a // b,
    "ceil_div": lambda a, b: -(-a // b),
    "round_up": lambda a, b: -(-a // b) * b,
    "log2": lambda a: a.bit_length() - 1,
    "is_pow2": lambda a: int(a > 0 and a & (a - 1) == 0),
}
_LEVELS = [  # loosest first
    {"||": lambda a, b: int(bool(a) or bool(b))},
    {"&&": lambda a, b: int(bool(a) and bool(b))},
    {"==": lambda a, b: int(a == b), "!=": lambda a, b: int(a != b)},
    {"<": lambda a, b: int(a < b), "<=": lambda a, b: int(a <= b), ">": lambda a, b: int(a > b),
     ">=": lambda a, b: int(a >= b)},
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"*": lambda a, b: a * b, "/": _exact, "%": lambda a, b: a % b},
]


class Expression:
    """`names` are what it reads; eval(env) is its value. Functions of an environment, no code is made from the text."""

    def __init__(self, text):
        self.text = text.strip()
        self._tokens = []
        at = 0
        while at < len(self.text):
            token = _TOKEN.match(self.text, at)
            if token is None:
                raise ValueError(f"'{self.text}': column {at + 1} is not understood")
            self._tokens.append(token.group(1) or token.group(2) or token.group(3))
            at = token.end()
        self._at = 0
        self._branches = None  # of a choice
        self.names = set()
        self._function = self._choice() if self._tokens else (lambda env: 0)
        if self._at != len(self._tokens):
            raise ValueError(f"'{self.text}': '{self._tokens[self._at]}' is not expected")

    def eval(self, env):
        return self._function(env)

    def unknown(self, env):
        """Names that its value needs and `env` lacks, for a choice those of the branch that is taken."""
        missing = set()

        class Probe(dict):
            def __missing__(self, name):
                missing.add(name)
                return 1

        try:
            self._function(Probe(env))
        except (ValueError, ZeroDivisionError):
            pass
        return missing

    def shown(self, env):
        """The text, or that of the branch which `env` chooses."""
        if self._branches is None:
            return self.text
        condition, yes, no = self._branches
        try:
            return yes if condition(env) else no
        except KeyError:
            return self.text

    def solve(self, env, value):
        """The value of its only unknown name that makes it `value`, as (name, number), or None."""
        unknown = self.unknown(env)
        if len(unknown) != 1:
            return None
        name = unknown.pop()
        try:
            f0, f1, f2 = (self.eval({**env, name: i}) for i in (0, 1, 2))
            slope = f1 - f0
            if slope == 0 or f2 - f1 != slope or (value - f0) % slope:
                return None
            number = (value - f0) // slope
            return (name, number) if number >= 0 and self.eval({**env, name: number}) == value else None
        except (ValueError, KeyError, ZeroDivisionError):
            return None

    def _peek(self):
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, wanted=None):
        token = self._peek()
        if token is None or (wanted is not None and token != wanted):
            raise ValueError(f"'{self.text}': {wanted or 'more'} is missing")
        self._at += 1
        return token

    def _choice(self):
        condition = self._level(0)
        if self._peek() != "?":
            return condition
        self._take("?")
        start = self._at
        yes = self._choice()
        middle = self._at
        self._take(":")
        no = self._choice()
        self._branches = condition, "".join(self._tokens[start:middle]), "".join(self._tokens[middle + 1:self._at])
        return lambda env: yes(env) if condition(env) else no(env)

    def _level(self, level):
        if level == len(_LEVELS):
            return self._unary()
        left = self._level(level + 1)
        while self._peek() in _LEVELS[level]:
            operation = _LEVELS[level][self._take()]
            left = self._binary(operation, left, self._level(level + 1))
        return left

    @staticmethod
    def _binary(operation, left, right):
        return lambda env: operation(left(env), right(env))

    def _unary(self):
        token = self._take()
        if token == "-":
            operand = self._unary()
            return lambda env: -operand(env)
        if token == "+":
            return self._unary()
        if token == "!":
            operand = self._unary()
            return lambda env: int(not operand(env))
        if token == "(":
            inner = self._choice()
            self._take(")")
            return inner
        if token.isdigit():
            number = int(token)
            return lambda env: number
        if self._peek() == "(":
            if token not in _FUNCTIONS:
                raise ValueError(f"'{self.text}': there is no function '{token}'")
            function, arguments = _FUNCTIONS[token], []
            self._take("(")
            while self._peek() != ")":
                arguments.append(self._choice())
                if self._peek() != ")":
                    self._take(",")
            self._take(")")
            return lambda env: function(*(argument(env) for argument in arguments))
        if not (token[0].isalpha() or token[0] == "_"):
            raise ValueError(f"'{self.text}': '{token}' is not expected")
        self.names.add(token)
        return lambda env: env[token]
