"""The learner's arithmetic in C++ for small networks on a CPU: compiled once on the machine it runs on.

It computes what `esper.simic` computes in torch, for multilayer perceptrons with an actor and a critic apart; the tests
hold the two together.
"""
