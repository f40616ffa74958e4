"""What answers used and cost: recorded, priced, summed, and held to budgets."""
