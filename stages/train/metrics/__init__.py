"""What is a connector worth?"""
