"""Stage 5: from measurements to recommendations: operating points, TOPSIS, Pareto fronts."""
