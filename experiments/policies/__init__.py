"""What do the policies cost, against the best in hindsight and against the simplest ones?"""
