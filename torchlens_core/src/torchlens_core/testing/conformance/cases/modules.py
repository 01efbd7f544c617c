"""Modules: which call an operation ran in, and which calls returned its array."""

from __future__ import annotations

from typing import Any

from ..case import Table, block, linear, x
from ..fixtures import Fixtures

MODULES = Table("modules", needs="modules")


@MODULES(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in mid:1 mid.blk:1 mid.blk.fc:1 -> mid.blk.fc:1
    relu_1_2 <- linear_1_1 in mid:1 mid.blk:1 mid.blk.act:1 -> mid.blk.act:1 mid.blk:1
    mul_1_3 <- relu_1_2 in mid:1 -> mid:1
    add_1_4 <- mul_1_3 -> self:1
    output_1 = output <- add_1_4
    """
)
def nested_modules(fw: Fixtures) -> Any:
    """Calls inside calls; an array may be what several of them return."""
    middle = fw.module(lambda self, x: self.blk(x) * 2, blk=block(fw))
    return fw.module(lambda self, x: self.mid(x) + 1, mid=middle), x(fw)


@MODULES(
    """
    input_1 = input.x
    linear_1_1:1 <- input_1 in fc:1 -> fc:1
    tanh_1_2 <- linear_1_1:1
    linear_1_1:2 <- tanh_1_2 in fc:2 -> fc:2 self:1
    output_1 = output <- linear_1_1:2
    """
)
def a_module_called_twice(fw: Fixtures) -> Any:
    """Two calls of one module; its parameters make its operation one layer with two passes."""
    return fw.module(lambda self, x: self.fc(fw.tanh(self.fc(x))), fc=linear(fw, 4, 4)), x(fw)


@MODULES(
    """
    input_1 = input.x
    linear_1_1:1 <- input_1 in a:1 -> a:1
    relu_1_2 <- linear_1_1:1
    linear_1_1:2 <- relu_1_2 in a:2 -> a:2 self:1
    output_1 = output <- linear_1_1:2
    """
)
def a_module_under_two_names(fw: Fixtures) -> Any:
    """One module held twice is one module, under its first name."""
    shared = linear(fw, 4, 4)
    return fw.module(lambda self, x: self.b(fw.relu(self.a(x))), a=shared, b=shared), x(fw)


@MODULES(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in a:1 -> a:1
    relu_1_2 <- linear_1_1 in act:1 -> act:1
    linear_2_3 <- relu_1_2 in b:1 -> b:1
    relu_2_4 <- linear_2_3 in act:2 -> act:2
    add_1_5 <- input_1, relu_2_4 -> self:1
    output_1 = output <- add_1_5
    """
)
def a_module_without_parameters_at_two_places(fw: Fixtures) -> Any:
    """One activation module at two places of a block is two layers, in two calls of one module."""

    def forward(self: Any, x: Any) -> Any:
        y = self.act(self.a(x))
        y = self.act(self.b(y))
        return x + y

    return fw.module(forward, a=linear(fw, 4, 4), b=linear(fw, 4, 4, 2), act=fw.relu_layer()), x(fw)


@MODULES(
    """
    input_1 = input.x
    mul_1_1 <- input_1
    identity_1_2 <- mul_1_1 in same:1 -> same:1
    add_1_3 <- identity_1_2 -> self:1
    output_1 = output <- add_1_3
    """
)
def a_module_that_returns_its_input(fw: Fixtures) -> Any:
    """What a module hands back unchanged is an Op of its own: identity."""
    return fw.module(lambda self, x: self.same(x * 2) + 1, same=fw.identity_layer()), x(fw)


@MODULES(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in layers.0:1 layers.0.fc:1 -> layers.0.fc:1
    relu_1_2 <- linear_1_1 in layers.0:1 layers.0.act:1 -> layers.0.act:1 layers.0:1
    linear_2_3 <- relu_1_2 in layers.1:1 layers.1.fc:1 -> layers.1.fc:1
    relu_2_4 <- linear_2_3 in layers.1:1 layers.1.act:1 -> layers.1.act:1 layers.1:1 self:1
    output_1 = output <- relu_2_4
    """
)
def modules_in_a_list(fw: Fixtures) -> Any:
    """Modules held in a list have their position in the address."""

    def forward(self: Any, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    return fw.module(forward, layers=[block(fw), block(fw, 4)]), x(fw)


@MODULES(
    """
    input_1 = input.x
    split_1_1 <- input_1 in parts:1 -> parts:1
    split_2_2 <- input_1 in parts:1
    relu_1_3 <- split_2_2 in parts:1 -> parts:1
    add_1_4 <- split_1_1, relu_1_3 -> self:1
    output_1 = output <- add_1_4
    """
)
def a_module_that_returns_a_dict(fw: Fixtures) -> Any:
    """Of a container each array is what the module returned."""

    def parts(self: Any, x: Any) -> Any:
        left, right = fw.split(x, 2)
        return {"left": left, "right": fw.relu(right)}

    def forward(self: Any, x: Any) -> Any:
        found = self.parts(x)
        return found["left"] + found["right"]

    return fw.module(forward, parts=fw.module(parts)), x(fw)


@MODULES(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in encoder:1 -> encoder:1
    relu_1_2 <- linear_1_1
    linear_2_3 <- relu_1_2 in decoder:1 -> decoder:1 self:1
    output_1 = output <- linear_2_3
    """
)
def a_closure_over_modules(fw: Fixtures) -> Any:
    """The modules that a function closes over are found, under the names of its variables."""
    encoder, decoder = linear(fw, 4, 3), linear(fw, 3, 4, 2)
    return lambda x: decoder(fw.relu(encoder(x))), x(fw)


@MODULES(
    """
    input_1 = input.x
    linear_1_1 <- input_1 in used:1 -> used:1 self:1
    output_1 = output <- linear_1_1
    """
)
def a_module_never_called(fw: Fixtures) -> Any:
    """A module that the run did not reach is known, and has no call."""
    return fw.module(lambda self, x: self.used(x), used=linear(fw, 4, 4), unused=linear(fw, 4, 4, 2)), x(fw)
