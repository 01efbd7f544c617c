"""Run by test_transforms.py in a process of its own: four devices on the CPU. Prints what holds."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np

import torchlens as tl

mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
spec = jax.sharding.PartitionSpec("i")
here = jax.sharding.NamedSharding(mesh, spec)
x = jnp.arange(8.0).reshape(4, 2)

sharded = jax.shard_map(lambda x: x - jax.lax.pmean(x, "i"), mesh=mesh, in_specs=spec, out_specs=spec)
trace = tl.trace(lambda x: jnp.tanh(sharded(x)), x)
np.testing.assert_allclose(trace["output_1"].out, jnp.tanh(sharded(x)), rtol=1e-6)
assert [op.type for op in trace.compute_ops] == ["shardmap", "tanh"], trace.compute_ops
print("shardmap")

mapped = jax.pmap(lambda x: x - jax.lax.pmean(x, "i"), axis_name="i")
trace = tl.trace(lambda x: mapped(x) * 2, x)
np.testing.assert_allclose(trace["output_1"].out, np.asarray(mapped(x)) * 2, rtol=1e-6)
print("pmap-like")

given = jax.device_put(x, here)
trace = tl.trace(lambda x: jnp.tanh(x) + 1, given)
assert trace["tanh_1"].out.sharding.is_equivalent_to(here, 2), trace["tanh_1"].out.sharding
assert given.sharding == here
print("sharded")
