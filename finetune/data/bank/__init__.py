"""The sound bank: labelled clips, spoken words and notes, from free packages or a user's own folder."""
